"""The decoder of LaME's training learns through K reason states, and through nothing else."""

import math
from pathlib import Path

import pytest
import torch
from toy_thinking import WatchedBackbone, collated, mixed_items, watched_backbone

from mmsearch.retriever.models.backbones.decoder import DecoderConfig
from mmsearch.retriever.models.bottleneck import Bottleneck, BottleneckConfig
from mmsearch.retriever.models.checkpoint import read_checkpoint, write_checkpoint
from mmsearch.retriever.models.target_decoder import TargetDecoder, TargetDecoderConfig
from mmsearch.retriever.models.tiny import random_model, tiny_description
from mmsearch.values import Item

CONFIG = TargetDecoderConfig(
    vocabulary=11,
    decoder=DecoderConfig(width=16, num_layers=2, num_heads=4, num_kv_heads=2, ffn_width=32),
)
TARGET = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 0, 0]])
MASK = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])


@pytest.fixture
def backbone() -> WatchedBackbone:
    return watched_backbone(WatchedBackbone).requires_grad_(True)


@pytest.fixture
def bottleneck(backbone: WatchedBackbone) -> Bottleneck:
    torch.manual_seed(1)
    return Bottleneck(BottleneckConfig(num_tokens=4, num_decoded=2), backbone)


@pytest.fixture
def decoder(bottleneck: Bottleneck) -> TargetDecoder:
    torch.manual_seed(2)
    return TargetDecoder(CONFIG, bottleneck)


def states(rows: int = 2) -> torch.Tensor:
    return torch.randn(rows, 4, 24, generator=torch.Generator().manual_seed(3))


def test_a_rows_loss_is_the_mean_over_its_tokens_each_predicted_from_those_before_it(
    decoder: TargetDecoder,
) -> None:
    reason = states()
    means = []
    for row, length in enumerate([5, 3]):
        surprises = []
        soft = decoder.into(decoder.norm(reason[row, :2]))
        for t in range(length):
            seen = torch.cat([soft, decoder.words(TARGET[row, :t])])[None]
            hidden, _ = decoder.decoder.prefill(seen, torch.ones(seen.shape[:2]).bool())
            probabilities = (decoder.words.weight @ hidden[0, -1]).softmax(dim=-1)
            surprises.append(-math.log(probabilities[TARGET[row, t]].item()))
        means.append(sum(surprises) / length)

    losses = decoder.losses(reason, TARGET, MASK)

    assert losses.tolist() == pytest.approx(means, abs=1e-5)


def test_padding_changes_nothing(decoder: TargetDecoder) -> None:
    reason = states()
    other = torch.where(MASK, TARGET, 7)

    losses = decoder.losses(reason, TARGET, MASK)
    torch.testing.assert_close(losses, decoder.losses(reason, other, MASK))
    alone = decoder.losses(reason[1:], TARGET[1:, :3], MASK[1:, :3])
    torch.testing.assert_close(losses[1:], alone)


def test_a_target_without_words_teaches_nothing(decoder: TargetDecoder) -> None:
    one = torch.stack([torch.zeros_like(MASK[0]), MASK[1]])

    losses = decoder.losses(states(), TARGET, one)

    assert losses[0].item() == 0.0
    assert losses[1].item() > 0.0


def test_it_keeps_its_own_precision(decoder: TargetDecoder) -> None:
    reason = states().bfloat16()

    losses = decoder.losses(reason, TARGET, MASK)

    assert losses.dtype is torch.float32
    torch.testing.assert_close(losses, decoder.losses(reason.float(), TARGET, MASK))


def test_only_the_first_reason_states_are_read(decoder: TargetDecoder) -> None:
    reason = states().requires_grad_(True)

    torch.autograd.backward(decoder.losses(reason, TARGET, MASK).sum())

    assert reason.grad is not None
    assert reason.grad.any(dim=-1).tolist() == [[True, True, False, False]] * 2


def test_its_gradient_reaches_the_encoder_through_those_states_alone(
    backbone: WatchedBackbone, bottleneck: Bottleneck, decoder: TargetDecoder
) -> None:
    batch = collated(backbone, Item(["a red bus"]), Item(["b"]))

    reason, _ = bottleneck.reason_states(backbone, batch)
    torch.autograd.backward(decoder.losses(reason, TARGET, MASK).sum())

    assert bottleneck.reason.grad is not None
    assert bottleneck.reason.grad.any(dim=-1).tolist() == [True, True, False, False]
    assert bottleneck.embed.grad is None or not bottleneck.embed.grad.any()
    assert backbone.words_in.weight.grad is not None
    assert backbone.words_in.weight.grad.any()
    # Of the prompt and the tail, only the places of the decoded states were read.
    assert backbone.hidden.grad is not None
    places = backbone.hidden.grad.any(dim=-1)
    assert places.sum(dim=1).tolist() == [2, 2]
    assert places[:, -5:-3].all()

    backbone.zero_grad()
    reason, _ = bottleneck.reason_states(backbone, batch)
    torch.autograd.backward(decoder.losses(reason.detach(), TARGET, MASK).sum())
    assert all(parameter.grad is None for parameter in backbone.parameters())


def test_it_learns_to_tell_two_targets_apart(
    backbone: WatchedBackbone, bottleneck: Bottleneck, decoder: TargetDecoder
) -> None:
    backbone.requires_grad_(False)
    batch = collated(backbone, Item(["a red bus"]), Item(["b"]))
    learnt = [*bottleneck.parameters(), *decoder.parameters()]
    optimiser = torch.optim.Adam(learnt, lr=1e-2)

    losses = []
    for _ in range(30):
        reason, _ = bottleneck.reason_states(backbone, batch)
        loss = decoder.losses(reason, TARGET, MASK).mean()
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        losses.append(loss.item())

    assert losses[0] == pytest.approx(math.log(CONFIG.vocabulary), rel=0.2)
    assert losses[-1] < losses[0] / 4
    swapped = decoder.losses(reason.flip(0), TARGET, MASK).mean().item()
    assert swapped > losses[-1] + 0.5  # it tells them by the states it was given


def test_a_model_that_was_trained_with_a_decoder_embeds_to_the_bit_as_without(
    tmp_path: Path,
) -> None:
    model = random_model(reasoner="bottleneck")
    batch = collated(model.backbone, *mixed_items())
    without = model.reasoner.think(model.backbone, batch, effort=4)

    decoder = TargetDecoder(CONFIG, model.reasoner)
    reason, _ = model.reasoner.reason_states(model.backbone, batch)
    decoder.losses(reason[:2], TARGET, MASK)
    beside = model.reasoner.think(model.backbone, batch, effort=4)
    write_checkpoint(tmp_path, model, tiny_description(reasoner="bottleneck"))
    _, read = read_checkpoint(tmp_path)
    written = read.reasoner.think(read.backbone, collated(read.backbone, *mixed_items()), effort=4)

    for name, readout in without.items():
        assert torch.equal(readout, beside[name])
        assert torch.equal(readout, written[name])
