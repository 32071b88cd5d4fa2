"""Reason tokens think in the one pass over the prompt, and each readout is the paper's."""

import pytest
import torch
import torch.nn.functional as F
from toy_thinking import WatchedBackbone, collated, mixed_items, watched_backbone

from mmsearch.retriever.models.bottleneck import Bottleneck, BottleneckConfig
from mmsearch.values import Item


@pytest.fixture(scope="module")
def backbone() -> WatchedBackbone:
    return watched_backbone(WatchedBackbone)


def bottleneck(
    backbone: WatchedBackbone, *, tokens: int = 4, decoded: int = 2, projection: int | None = None
) -> Bottleneck:
    torch.manual_seed(1)
    config = BottleneckConfig(tokens, decoded, projection)
    reasoner = Bottleneck(config, backbone).requires_grad_(False).eval()
    reasoner.reason.normal_()  # so that they differ by more than rounding
    reasoner.embed.normal_()
    return reasoner


def test_it_takes_one_pass_and_no_other(backbone: WatchedBackbone) -> None:
    layers: list[int] = []
    hook = backbone.decoder.layers[0].register_forward_pre_hook(lambda *_: layers.append(1))
    backbone.asked.clear()

    bottleneck(backbone).think(backbone, collated(backbone, *mixed_items()), effort=4)
    hook.remove()

    assert backbone.asked == [("prefill", 5, 0)]  # four reason tokens and [EMBED]
    assert layers == [1]


def test_the_one_pass_equals_going_on_from_the_prompt(backbone: WatchedBackbone) -> None:
    reasoner = bottleneck(backbone)
    batch = collated(backbone, *mixed_items())

    reason, embed = reasoner.reason_states(backbone, batch)

    _, cache = backbone.prefill(batch)
    tail = torch.cat([reasoner.reason, reasoner.embed[None]])
    hidden, _ = backbone.extend(tail.expand(5, -1, -1), cache)
    torch.testing.assert_close(reason, hidden[:, :4], atol=1e-5, rtol=0)
    torch.testing.assert_close(embed, hidden[:, 4], atol=1e-5, rtol=0)


def test_the_readouts_are_what_the_decoder_leaves_the_embed_token_and_their_mean(
    backbone: WatchedBackbone,
) -> None:
    reasoner = bottleneck(backbone)
    batch = collated(backbone, *mixed_items())
    reason, embed = reasoner.reason_states(backbone, batch)

    readouts = reasoner.think(backbone, batch, effort=4)

    gen = (reason[:, 2] + reason[:, 3]) / 2
    torch.testing.assert_close(readouts["gen"], gen)
    torch.testing.assert_close(readouts["disc"], embed)
    mean = gen / gen.norm(dim=-1, keepdim=True) + embed / embed.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(readouts["mean"], mean)


def test_where_the_decoder_reads_all_tokens_the_readout_is_the_mean_of_all(
    backbone: WatchedBackbone,
) -> None:
    reasoner = bottleneck(backbone, tokens=3, decoded=3)
    batch = collated(backbone, *mixed_items())
    reason, _ = reasoner.reason_states(backbone, batch)

    gen = reasoner.think(backbone, batch, effort=3)["gen"]

    torch.testing.assert_close(gen, (reason[:, 0] + reason[:, 1] + reason[:, 2]) / 3)


def test_a_projection_has_its_own_weights_for_each_readout_and_sets_the_width(
    backbone: WatchedBackbone,
) -> None:
    reasoner = bottleneck(backbone, projection=7)
    batch = collated(backbone, *mixed_items())
    reason, embed = reasoner.reason_states(backbone, batch)

    readouts = reasoner.think(backbone, batch, effort=4)

    assert reasoner.dim == 7
    state = reasoner.state_dict()
    gen = reason[:, 2:].mean(dim=1) @ state["out_gen.weight"].T + state["out_gen.bias"]
    disc = embed @ state["out_disc.weight"].T + state["out_disc.bias"]
    torch.testing.assert_close(readouts["gen"], gen)
    torch.testing.assert_close(readouts["disc"], disc)
    torch.testing.assert_close(readouts["mean"], F.normalize(gen) + F.normalize(disc))


def test_without_a_projection_the_readouts_are_as_wide_as_the_backbone(
    backbone: WatchedBackbone,
) -> None:
    reasoner = bottleneck(backbone)

    assert reasoner.dim == backbone.width
    assert set(reasoner.state_dict()) == {"reason", "embed"}


def test_an_item_alone_equals_the_item_in_a_batch(backbone: WatchedBackbone) -> None:
    reasoner = bottleneck(backbone)
    together = reasoner.think(backbone, collated(backbone, *mixed_items()), effort=4)

    for row, item in enumerate(mixed_items()):
        alone = reasoner.think(backbone, collated(backbone, item), effort=4)
        for name, readout in together.items():
            assert F.cosine_similarity(readout[row], alone[name][0], dim=0) >= 0.999999


def test_bfloat16_comes_out_as_it_went_in() -> None:
    backbone = watched_backbone(WatchedBackbone).bfloat16()
    reasoner = bottleneck(backbone).bfloat16()

    readouts = reasoner.think(backbone, collated(backbone, Item(["a"])), effort=4)

    assert {readout.dtype for readout in readouts.values()} == {torch.bfloat16}


@pytest.mark.parametrize("effort", [0, 3, 5])
def test_it_has_no_other_effort_than_its_tokens(backbone: WatchedBackbone, effort: int) -> None:
    with pytest.raises(ValueError, match=f"has 4 reason tokens, got effort {effort}"):
        bottleneck(backbone).think(backbone, collated(backbone, Item(["a"])), effort=effort)


@pytest.mark.parametrize(("tokens", "decoded"), [(4, 0), (4, 5), (0, 0)])
def test_the_decoder_reads_some_of_the_tokens_there_are(
    backbone: WatchedBackbone, tokens: int, decoded: int
) -> None:
    with pytest.raises(ValueError, match=f"cannot decode from {decoded} of {tokens}"):
        bottleneck(backbone, tokens=tokens, decoded=decoded)
