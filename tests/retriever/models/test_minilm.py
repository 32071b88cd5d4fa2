"""A window's states are its own business."""

import torch

from mmsearch.retriever.models.backbones.minilm import MiniLM
from mmsearch.retriever.models.tiny import CONFIG, random_model


def encoder() -> MiniLM:
    return random_model(seed=3).backbone.text


def test_padding_never_changes_a_state() -> None:
    ids = torch.tensor([[2, 5, 6, 7, 3]])
    padded = torch.cat([ids, torch.full((1, 4), 9)], dim=1)
    mask = torch.tensor([[True] * 5 + [False] * 4])

    alone = encoder()(ids, torch.ones_like(ids, dtype=torch.bool))
    together = encoder()(padded, mask)

    torch.testing.assert_close(together[:, :5], alone, atol=1e-5, rtol=0)


def test_a_token_sees_both_sides() -> None:
    ids, changed = torch.tensor([[2, 5, 6, 3]]), torch.tensor([[2, 5, 8, 3]])
    mask = torch.ones_like(ids, dtype=torch.bool)

    before, after = encoder()(ids, mask), encoder()(changed, mask)

    assert not torch.allclose(before[0, 1], after[0, 1], atol=1e-4)


def test_states_are_normalised_after_the_last_layer() -> None:
    ids = torch.arange(4, 10)[None]

    states = encoder()(ids, torch.ones_like(ids, dtype=torch.bool))

    assert states.shape == (1, 6, CONFIG.text.width)
    torch.testing.assert_close(states.mean(dim=-1), torch.zeros(1, 6), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        states.var(dim=-1, unbiased=False), torch.ones(1, 6), atol=1e-3, rtol=0
    )
