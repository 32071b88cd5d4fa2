"""A written thought ends where it ends, whatever the other rows of its batch do."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from toy_thinking import (
    ScriptedBackbone,
    WatchedBackbone,
    collated,
    mixed_items,
    watched_backbone,
)

from mmsearch.retriever.models.cot import TOKENS_BETWEEN_LOOKS, Cot, CotConfig
from mmsearch.retriever.models.none import NoneConfig, NoReasoner
from mmsearch.values import Item


@pytest.fixture(scope="module")
def backbone() -> ScriptedBackbone:
    return watched_backbone(ScriptedBackbone)


def cot(backbone: WatchedBackbone, *, most: int = 40) -> Cot:
    return Cot(CotConfig(max_new_tokens=most, gen="~", ends=("!",)), backbone)


def written(backbone: WatchedBackbone, item: Item, most: int) -> tuple[Tensor, int]:
    """Return the readout of one item and how long its thought was, by a loop of one row."""
    gen, end = backbone.tokens("~ !")
    hidden, cache = backbone.prefill(collated(backbone, item))
    length = 0
    while True:
        token = int(backbone.logits(hidden[:, -1]).argmax())
        if length == most or token in (gen, end):
            token = gen
        hidden, cache = backbone.extend(backbone.embed(torch.tensor([[token]])), cache)
        if token == gen:
            return hidden[0, -1], length
        length += 1


def items() -> list[Item]:
    return [*mixed_items(), *(Item([letters]) for letters in ("cat", "dog", "what", "z z z", "u"))]


@pytest.mark.parametrize("most", [0, 1, 3, 40])
def test_a_batch_is_read_out_as_a_loop_of_one_row_reads_each(
    backbone: ScriptedBackbone, most: int
) -> None:
    expected = [written(backbone, item, most) for item in items()]

    gen = cot(backbone, most=most).think(backbone, collated(backbone, *items()), effort=0)["gen"]

    readouts = torch.stack([readout for readout, _ in expected])
    torch.testing.assert_close(gen, readouts, atol=1e-5, rtol=0)
    if most == 40:  # some end by themselves, at several lengths, and some are ended
        lengths = {length for _, length in expected}
        assert len(lengths) >= 4
        assert max(lengths) == 40


def test_an_item_alone_equals_the_item_in_a_batch(backbone: ScriptedBackbone) -> None:
    reasoner = cot(backbone)
    together = reasoner.think(backbone, collated(backbone, *items()), effort=0)

    for row, item in enumerate(items()):
        alone = reasoner.think(backbone, collated(backbone, item), effort=0)
        for name, readout in together.items():
            assert F.cosine_similarity(readout[row], alone[name][0], dim=0) >= 0.999999


def test_both_ends_of_a_thought_lead_to_the_readout_token() -> None:
    """Where a row says what ends a thought, the readout token is heard in its place."""
    backbone = watched_backbone(ScriptedBackbone)
    batch = collated(backbone, *items())
    gen = cot(backbone).think(backbone, batch, effort=0)["gen"]
    backbone.letters = "abcdefghijkl!~"  # either is said where the other was

    swapped = cot(backbone).think(backbone, batch, effort=0)["gen"]

    torch.testing.assert_close(swapped, gen)


def test_the_cache_has_room_for_the_longest_thought_and_its_readout() -> None:
    backbone = watched_backbone(ScriptedBackbone)

    cot(backbone, most=5).think(backbone, collated(backbone, *items()), effort=0)

    assert backbone.asked == [("prefill", 0, 6), *[("extend", 1, 0)] * 6]


def test_it_looks_for_the_end_of_all_thoughts_only_now_and_then() -> None:
    backbone = watched_backbone(ScriptedBackbone)
    short = min(items(), key=lambda item: written(backbone, item, 200)[1])
    assert written(backbone, short, 200)[1] < TOKENS_BETWEEN_LOOKS
    backbone.asked.clear()

    cot(backbone, most=200).think(backbone, collated(backbone, short), effort=0)

    assert len(backbone.asked) == 1 + TOKENS_BETWEEN_LOOKS


def test_the_readouts_of_the_prompt_come_with_it(backbone: ScriptedBackbone) -> None:
    batch = collated(backbone, *mixed_items())

    readouts = cot(backbone).think(backbone, batch, effort=0)

    plain = NoReasoner(NoneConfig(), backbone).think(backbone, batch, effort=0)
    assert readouts.keys() == {"gen", *plain}
    for name, readout in plain.items():
        torch.testing.assert_close(readouts[name], readout)


def test_it_takes_no_latent_steps(backbone: ScriptedBackbone) -> None:
    with pytest.raises(ValueError, match="takes no latent steps, got effort 1"):
        cot(backbone).think(backbone, collated(backbone, Item(["a"])), effort=1)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (CotConfig(gen="<gen_emb>", ends=()), "no token '<gen_emb>'"),
        (CotConfig(gen="~", ends=("<|im_end|>",)), r"no token '<\|im_end\|>'"),
        (CotConfig(max_new_tokens=-1, gen="~", ends=()), "counts from 0"),
    ],
)
def test_tokens_that_the_vocabulary_lacks_are_refused(
    backbone: ScriptedBackbone, config: CotConfig, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        Cot(config, backbone)


def test_a_thought_without_end_tokens_ends_at_the_readout_token(
    backbone: ScriptedBackbone,
) -> None:
    batch = collated(backbone, *mixed_items())
    reasoner = Cot(CotConfig(max_new_tokens=3, gen="~", ends=()), backbone)

    assert reasoner.think(backbone, batch, effort=0)["gen"].isfinite().all()
