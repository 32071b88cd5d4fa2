"""The latent rollout computes the paper's equations, whatever the batch and the cache."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from plain_plume import plain_rollout
from toy_thinking import WatchedBackbone, collated, mixed_items, watched_backbone

from mmsearch.retriever.models.none import NoneConfig, NoReasoner
from mmsearch.retriever.models.rollout import LatentSteps, Rollout, RolloutConfig
from mmsearch.values import Item

SUFFIX = "(~)"  # three tokens of the toy vocabulary


@pytest.fixture(scope="module")
def backbone() -> WatchedBackbone:
    return watched_backbone(WatchedBackbone)


def rollout(backbone: WatchedBackbone, **choices: object) -> Rollout:
    torch.manual_seed(1)
    config = RolloutConfig(**{"steps": 4, "suffix": SUFFIX, **choices})  # type: ignore[arg-type]
    reasoner = Rollout(config, backbone).requires_grad_(False).eval()
    if reasoner.adapter is not None:  # so that rows choose, and the context counts
        reasoner.adapter.router.weight.mul_(8.0)
    return reasoner


@pytest.mark.parametrize("effort", [0, 1, 4])
@pytest.mark.parametrize(
    "choices",
    [{"context": "disc"}, {"context": "prefix_last"}, {"context": "none"}, {"adapter": None}],
    ids=["anchor", "last", "zeros", "coconut"],
)
def test_the_cached_rollout_of_a_batch_equals_the_equations_for_each_item(
    backbone: WatchedBackbone, choices: dict[str, object], effort: int
) -> None:
    reasoner = rollout(backbone, **choices)

    gen = reasoner.think(backbone, collated(backbone, *mixed_items()), effort=effort)["gen"]

    expected = [
        plain_rollout(backbone, reasoner, collated(backbone, item), effort)
        for item in mixed_items()
    ]
    torch.testing.assert_close(gen, torch.stack(expected), atol=1e-5, rtol=0)


def test_no_steps_are_a_plain_readout_of_the_suffix(backbone: WatchedBackbone) -> None:
    batch = collated(backbone, *mixed_items())
    suffix = backbone.embed(torch.tensor(backbone.tokens(SUFFIX)))

    gen = rollout(backbone).think(backbone, batch, effort=0)["gen"]

    hidden, _ = backbone.prefill(batch, tail=suffix)
    torch.testing.assert_close(gen, hidden[:, -1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("effort", [0, 4])
def test_an_item_alone_equals_the_item_in_a_batch(backbone: WatchedBackbone, effort: int) -> None:
    reasoner = rollout(backbone)
    together = reasoner.think(backbone, collated(backbone, *mixed_items()), effort=effort)

    for row, item in enumerate(mixed_items()):
        alone = reasoner.think(backbone, collated(backbone, item), effort=effort)
        for name, readout in together.items():
            assert F.cosine_similarity(readout[row], alone[name][0], dim=0) >= 0.999999
            torch.testing.assert_close(readout[row], alone[name][0], atol=1e-5, rtol=0)


def test_every_step_and_every_context_counts(backbone: WatchedBackbone) -> None:
    batch = collated(backbone, Item(["a red bus"]))
    read = [
        rollout(backbone, context=context).think(backbone, batch, effort=effort)["gen"]
        for context, effort in [("disc", 4), ("disc", 3), ("prefix_last", 4), ("none", 4)]
    ]

    for one, other in itertools.combinations(read, 2):  # by more than what parity allows
        assert (one - other).abs().max() > 1e-3


def test_one_pass_then_a_token_a_step_then_the_suffix(backbone: WatchedBackbone) -> None:
    backbone.asked.clear()

    rollout(backbone).think(backbone, collated(backbone, Item(["a"])), effort=2)

    # Room for all that follows: two steps and three tokens.
    assert backbone.asked == [("prefill", 0, 5), *[("extend", 1, 0)] * 2, ("extend", 3, 0)]


def test_the_readouts_of_the_prompt_come_with_it(backbone: WatchedBackbone) -> None:
    batch = collated(backbone, *mixed_items())

    readouts = rollout(backbone).think(backbone, batch, effort=4)

    plain = NoReasoner(NoneConfig(), backbone).think(backbone, batch, effort=0)
    assert readouts.keys() == {"gen", *plain}
    for name, readout in plain.items():
        torch.testing.assert_close(readouts[name], readout)


@pytest.mark.parametrize("effort", [-1, 5])
def test_more_steps_than_it_was_trained_with_are_refused(
    backbone: WatchedBackbone, effort: int
) -> None:
    with pytest.raises(ValueError, match=f"trained with 4 steps, got effort {effort}"):
        rollout(backbone).think(backbone, collated(backbone, Item(["a"])), effort=effort)


@pytest.mark.parametrize(
    ("choices", "reason"),
    [
        ({"context": "mood"}, "not 'mood'"),
        ({"suffix": ""}, "needs a token"),
        ({"suffix": "<eot>~"}, "no token '<eot>'"),  # else its letters would be the suffix
        ({"steps": -1}, "count from 0"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(
    backbone: WatchedBackbone, choices: dict[str, object], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        rollout(backbone, **choices)


@pytest.mark.parametrize(
    ("context", "places"), [("disc", [1, 3]), ("prefix_last", [3]), ("none", [3])]
)
def test_gradients_flow_from_the_readout_to_the_adapter_and_to_the_anchor(
    context: str, places: list[int]
) -> None:
    backbone = watched_backbone(WatchedBackbone).requires_grad_(True)
    reasoner = rollout(backbone, context=context).requires_grad_(True)

    gen = reasoner.think(backbone, collated(backbone, Item(["a"])), effort=2)["gen"]
    torch.autograd.backward((gen * torch.arange(gen.shape[1])).sum())

    # [CLS] a [SEP] end: the anchor is two places before the end.
    assert backbone.hidden.grad is not None
    assert backbone.hidden.grad[0].any(dim=-1).nonzero().flatten().tolist() == places
    assert reasoner.adapter is not None
    for name in ("router.weight", "step_embed.weight", "shared_expert.fc1.weight", "ln.weight"):
        gradient = reasoner.adapter.get_parameter(name).grad
        assert gradient is not None, name
        assert gradient.any(), name
    steps = reasoner.adapter.step_embed.weight.grad
    assert steps is not None
    assert steps.any(dim=-1).nonzero().flatten().tolist() == [0, 1]
    for parameter in (backbone.words_in.weight, backbone.end):
        assert parameter.grad is not None
        assert parameter.grad.any()


def test_equal_steps_are_those_of_the_same_modules_and_effort(backbone: WatchedBackbone) -> None:
    one, other = rollout(backbone), rollout(backbone)
    steps = LatentSteps(one, backbone, 4)

    again = LatentSteps(one, backbone, 4)

    assert steps == again
    assert hash(steps) == hash(again)
    assert steps != LatentSteps(one, backbone, 3)
    assert steps != LatentSteps(other, backbone, 4)
    assert steps != LatentSteps(one, watched_backbone(WatchedBackbone), 4)


def test_the_steps_never_ask_for_a_value() -> None:
    """What does could not be recorded as one graph: tensors on "meta" have no values."""
    backbone = watched_backbone(WatchedBackbone)
    reasoner = rollout(backbone)
    _, cache = backbone.prefill(collated(backbone, *mixed_items()))
    cache = type(cache)(
        tuple(key.to("meta") for key in cache.keys),
        tuple(value.to("meta") for value in cache.values),
        cache.mask.to("meta"),
    )
    state = torch.empty(5, backbone.width, device="meta")
    suffix = torch.empty(3, backbone.width, device="meta")

    steps = LatentSteps(reasoner.to("meta"), backbone.to("meta"), 4)

    assert steps(cache, state, state, suffix).shape == (5, backbone.width)
