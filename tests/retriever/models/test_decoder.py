"""Going on from a cache is the same as computing all at once, whatever the padding."""

import pytest
import torch
from torch import Tensor

from mmsearch.retriever.models.backbones.decoder import (
    Decoder,
    DecoderConfig,
    RMSNorm,
    rotate,
)

CONFIG = DecoderConfig(width=24, num_layers=2, num_heads=4, num_kv_heads=2, ffn_width=48)


@pytest.fixture
def decoder() -> Decoder:
    torch.manual_seed(0)
    return Decoder(CONFIG).requires_grad_(False).eval()


def embeds(*shape: int) -> Tensor:
    return torch.randn(*shape, CONFIG.width, generator=torch.Generator().manual_seed(1))


def real(*shape: int) -> Tensor:
    return torch.ones(*shape, dtype=torch.bool)


@pytest.mark.parametrize("steps", [(1,), (1, 1, 1), (5,), (1, 5, 2)])
def test_extending_equals_a_full_recompute(decoder: Decoder, steps: tuple[int, ...]) -> None:
    x = embeds(2, 7 + sum(steps))
    full, _ = decoder.prefill(x, real(2, x.shape[1]))

    hidden, cache = decoder.prefill(x[:, :7], real(2, 7))
    grown, at = [hidden], 7
    for m in steps:
        hidden, cache = decoder.extend(x[:, at : at + m], cache)
        grown.append(hidden)
        at += m

    torch.testing.assert_close(torch.cat(grown, dim=1), full, atol=1e-5, rtol=0)


def test_a_left_padded_row_equals_the_row_alone(decoder: Decoder) -> None:
    long, short = embeds(1, 9), embeds(1, 4) * 2
    padded = torch.cat([torch.full((1, 5, CONFIG.width), 7.0), short], dim=1)
    mask = torch.tensor([[True] * 9, [False] * 5 + [True] * 4])

    together, cache = decoder.prefill(torch.cat([long, padded]), mask)
    further, _ = decoder.extend(embeds(2, 3), cache)

    alone, cache_alone = decoder.prefill(short, real(1, 4))
    further_alone, _ = decoder.extend(embeds(2, 3)[1:], cache_alone)
    torch.testing.assert_close(together[1:, 5:], alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(further[1:], further_alone, atol=1e-5, rtol=0)


def test_padding_computes_no_nan(decoder: Decoder) -> None:
    mask = torch.tensor([[False, False, True]])

    hidden, _ = decoder.prefill(embeds(1, 3), mask)

    assert hidden.isfinite().all()


def test_a_token_does_not_see_later_ones(decoder: Decoder) -> None:
    x = embeds(1, 6)
    changed = x.clone()
    changed[:, 4:] += 1.0

    before, _ = decoder.prefill(x, real(1, 6))
    after, _ = decoder.prefill(changed, real(1, 6))

    torch.testing.assert_close(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:], after[:, 4:])


def test_extending_leaves_the_cache_it_was_given_alone(decoder: Decoder) -> None:
    _, cache = decoder.prefill(embeds(1, 4), real(1, 4))
    kept = [key.clone() for key in cache.keys]

    decoder.extend(embeds(1, 2), cache)
    again, _ = decoder.extend(embeds(1, 2), cache)

    assert cache.mask.shape == (1, 4)
    for key, copy in zip(cache.keys, kept, strict=True):
        torch.testing.assert_close(key, copy)
    torch.testing.assert_close(again, decoder.extend(embeds(1, 2), cache)[0])


def test_order_matters(decoder: Decoder) -> None:
    x = embeds(1, 3)

    forwards, _ = decoder.prefill(x, real(1, 3))
    swapped, _ = decoder.prefill(x[:, [1, 0, 2]], real(1, 3))

    assert not torch.allclose(forwards[:, -1], swapped[:, -1], atol=1e-4)


def test_rotation_turns_each_pair_by_its_angle() -> None:
    x = torch.tensor([1.0, 0.0]).reshape(1, 1, 1, 2)

    turned = rotate(x, torch.full((1, 1, 1, 1), torch.pi / 2))

    torch.testing.assert_close(turned.flatten(), torch.tensor([0.0, 1.0]), atol=1e-6, rtol=0)


def test_rms_norm_divides_by_the_root_mean_square() -> None:
    x = torch.tensor([[3.0, 4.0]])  # mean square 12.5

    torch.testing.assert_close(RMSNorm(2, 0.0)(x), x / 12.5**0.5)
