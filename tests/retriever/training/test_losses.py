"""The losses: checked against sums on paper, and against a loop over plain floats."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmsearch.retriever.training.losses import (
    alike_pairs,
    balance_loss,
    hold_loss,
    info_nce,
    matryoshka,
    unit_rows,
)

TEMPERATURE = 0.02


def rows(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def looped_info_nce(
    queries: Tensor,
    positives: Tensor,
    temperature: float,
    *,
    left_out: frozenset[tuple[int, int]] = frozenset(),
    negatives: Tensor | None = None,
    negative_left_out: frozenset[tuple[int, int]] = frozenset(),
) -> float:
    """The definition, one float64 at a time."""

    def cosine(a: Tensor, b: Tensor) -> float:
        return float(F.cosine_similarity(a.double(), b.double(), dim=0))

    num = len(queries)
    loss = 0.0
    for i in range(num):
        itself = math.exp(cosine(queries[i], positives[i]) / temperature)
        row = [
            math.exp(cosine(queries[i], positives[j]) / temperature)
            for j in range(num)
            if i == j or (i, j) not in left_out
        ]
        row += [
            math.exp(cosine(queries[i], negative) / temperature)
            for j, negative in enumerate(negatives if negatives is not None else ())
            if (i, j) not in negative_left_out
        ]
        column = [
            math.exp(cosine(queries[j], positives[i]) / temperature)
            for j in range(num)
            if i == j or (j, i) not in left_out
        ]
        loss -= 0.5 * (math.log(itself / sum(row)) + math.log(itself / sum(column)))
    return loss / num


def test_two_pairs_at_right_angles_have_the_loss_on_paper() -> None:
    loss = info_nce(torch.eye(2), torch.eye(2), temperature=1.0)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-1)))


def test_info_nce_is_its_definition() -> None:
    queries, positives, negatives = rows(5, 8, seed=0), rows(5, 8, seed=1), rows(3, 8, seed=2)
    pairs, further = {(0, 1), (3, 2)}, {(0, 2), (1, 1), (4, 0)}
    alike = torch.zeros(5, 5, dtype=torch.bool)
    negative_alike = torch.zeros(5, 3, dtype=torch.bool)
    for i, j in pairs:
        alike[i, j] = True
    for i, j in further:
        negative_alike[i, j] = True
    loss = info_nce(
        queries,
        positives,
        temperature=0.3,
        alike=alike,
        negatives=negatives,
        negative_alike=negative_alike,
    )
    expected = looped_info_nce(
        queries,
        positives,
        0.3,
        left_out=frozenset(pairs),
        negatives=negatives,
        negative_left_out=frozenset(further),
    )
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_the_length_of_rows_does_not_matter() -> None:
    queries, positives = rows(4, 6, seed=0), rows(4, 6, seed=1)
    lengths = torch.tensor([[1e30], [1e-30], [3.0], [1e-3]])
    loss = info_nce(queries, positives, temperature=0.1)
    assert info_nce(queries * lengths, positives, temperature=0.1).item() == pytest.approx(
        loss.item(), rel=1e-5
    )


def test_gradients_at_the_ends_of_float32_are_finite() -> None:
    queries = (rows(3, 6, seed=0) * torch.tensor([[1e30], [1e-30], [1.0]])).requires_grad_()
    torch.autograd.backward(info_nce(queries, rows(3, 6, seed=1), temperature=TEMPERATURE))
    assert queries.grad is not None
    assert torch.isfinite(queries.grad).all()
    assert queries.grad[2].any()


def test_a_batch_of_one_pair_has_no_loss_and_no_gradient() -> None:
    queries, positives = rows(1, 6, seed=0).requires_grad_(), rows(1, 6, seed=1)
    loss = info_nce(queries, positives, temperature=TEMPERATURE)
    torch.autograd.backward(loss)
    assert loss.item() == 0
    assert queries.grad is not None
    assert not queries.grad.any()


def test_one_pair_with_a_hard_negative_has_a_loss() -> None:
    queries = rows(1, 6, seed=0).requires_grad_()
    loss = info_nce(queries, rows(1, 6, seed=1), temperature=1.0, negatives=rows(1, 6, seed=2))
    torch.autograd.backward(loss)
    assert loss.item() > 0.1
    assert queries.grad is not None
    assert queries.grad.any()


def test_a_row_of_zeros_harms_no_other() -> None:
    queries = rows(4, 6, seed=0)
    queries[1] = 0
    queries.requires_grad_()
    positives = rows(4, 6, seed=1)
    positives[3] = 0
    positives.requires_grad_()
    loss = info_nce(queries, positives, temperature=TEMPERATURE)
    torch.autograd.backward(loss)
    assert math.isfinite(loss.item())
    assert queries.grad is not None
    assert positives.grad is not None
    assert not queries.grad[1].any()
    assert not positives.grad[3].any()
    assert queries.grad[0].any()
    assert max(queries.grad.abs().max(), positives.grad.abs().max()) < 1e3


def test_nan_is_not_hidden() -> None:
    queries = rows(3, 6, seed=0)
    queries[1, 2] = math.nan
    assert info_nce(queries, rows(3, 6, seed=1), temperature=1.0).isnan()
    queries[1, 2] = math.inf
    assert info_nce(queries, rows(3, 6, seed=1), temperature=1.0).isnan()


def near_rows() -> tuple[Tensor, Tensor]:
    """Pairs of cosine 0.990 to 0.994: logits of 49.5 to 49.7, which are one in bfloat16."""
    cosines = torch.tensor([0.990, 0.991, 0.992, 0.993, 0.994])
    queries = torch.zeros(5, 4)
    queries[:, 0] = 1
    positives = torch.stack([cosines, (1 - cosines**2).sqrt(), *torch.zeros(2, 5)], dim=1)
    return queries, positives


def test_logits_are_float32_under_autocast() -> None:
    queries, positives = near_rows()
    expected = looped_info_nce(queries, positives, TEMPERATURE)
    rounded = (positives.bfloat16() / TEMPERATURE)[:, 0]
    assert len(set(rounded.tolist())) < 5  # what the published trainer would tell apart
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = info_nce(queries, positives, temperature=TEMPERATURE)
    assert loss.dtype is torch.float32
    assert loss.item() == pytest.approx(expected, abs=2e-5)


def test_logits_are_float32_where_matrix_products_need_not_be() -> None:
    """Large enough that processors with bfloat16 products would take them, as TF32 does."""
    queries = rows(128, 128, seed=0)
    positives = 0.2 * queries + rows(128, 128, seed=1)
    expected = info_nce(queries, positives, temperature=TEMPERATURE)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        loss = info_nce(queries, positives, temperature=TEMPERATURE)
    finally:
        torch.set_float32_matmul_precision(before)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_bfloat16_rows_have_float32_logits() -> None:
    queries, positives = rows(16, 32, seed=0).bfloat16(), rows(16, 32, seed=1).bfloat16()
    loss = info_nce(queries, positives, temperature=TEMPERATURE)
    assert loss.dtype is torch.float32
    expected = looped_info_nce(queries, positives, TEMPERATURE)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_alike_pairs_are_no_negatives_and_the_diagonal_always_counts() -> None:
    queries, positives = rows(3, 6, seed=0).requires_grad_(), rows(3, 6, seed=1)
    everything = torch.ones(3, 3, dtype=torch.bool)
    loss = info_nce(queries, positives, temperature=TEMPERATURE, alike=everything)
    torch.autograd.backward(loss)
    assert loss.item() == 0
    assert queries.grad is not None
    assert not queries.grad.any()
    assert everything.all()  # what was handed in is as it was


def test_a_named_negative_counts_for_its_own_query_however_alike() -> None:
    queries, positives, negatives = rows(2, 6, seed=0), rows(2, 6, seed=1), rows(1, 6, seed=2)
    alike = torch.ones(2, 1, dtype=torch.bool)
    loss = info_nce(
        queries,
        positives,
        temperature=0.5,
        negatives=negatives,
        negative_of=torch.tensor([1]),
        negative_alike=alike,
    )
    expected = looped_info_nce(
        queries, positives, 0.5, negatives=negatives, negative_left_out=frozenset({(0, 0)})
    )
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_no_hard_negatives_are_none() -> None:
    queries, positives = rows(3, 6, seed=0), rows(3, 6, seed=1)
    none = info_nce(
        queries,
        positives,
        temperature=0.5,
        negatives=torch.zeros(0, 6),
        negative_of=torch.zeros(0, dtype=torch.int64),
        negative_alike=torch.zeros(3, 0, dtype=torch.bool),
    )
    assert none == info_nce(queries, positives, temperature=0.5)


def test_a_temperature_can_be_learnt() -> None:
    temperature = torch.tensor(0.5, requires_grad=True)
    torch.autograd.backward(
        info_nce(rows(3, 6, seed=0), rows(3, 6, seed=1), temperature=temperature)
    )
    assert temperature.grad is not None
    assert temperature.grad != 0


@pytest.mark.parametrize(
    ("queries", "positives"), [((2, 3), (3, 3)), ((0, 3), (0, 3)), ((3,), (3,))]
)
def test_rows_that_are_no_pairs_are_refused(
    queries: tuple[int, ...], positives: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="rows of the same shape"):
        info_nce(torch.ones(queries), torch.ones(positives), temperature=1.0)


def test_matryoshka_is_the_weighted_sum_over_normalised_leading_dimensions() -> None:
    queries, positives = rows(4, 8, seed=0), rows(4, 8, seed=1)

    def loss_at(dim: int) -> Tensor:
        return info_nce(queries[:, :dim], positives[:, :dim], temperature=0.2)

    loss = matryoshka(loss_at, (8, 4, 2), (1.0, 0.5, 0.25))
    expected = sum(
        weight * looped_info_nce(queries[:, :dim], positives[:, :dim], 0.2)
        for dim, weight in ((8, 1.0), (4, 0.5), (2, 0.25))
    )
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("dims", "weights"), [((), ()), ((4, 2), (1.0,)), ((4, 0), (1.0, 1.0))])
def test_sizes_without_weights_are_refused(
    dims: tuple[int, ...], weights: tuple[float, ...]
) -> None:
    with pytest.raises(ValueError, match="every size has a weight"):
        matryoshka(lambda dim: torch.zeros(()), dims, weights)


def test_the_same_content_and_the_same_looks_are_alike() -> None:
    look_a = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    look_b = torch.tensor([[0.98, 0.199], [0.0, 0.0]])  # the first 0.98 from look_a[0]
    alike = alike_pairs(torch.tensor([1, 2, 3]), torch.tensor([7, 2]), look_a, look_b)
    assert alike.tolist() == [[True, False], [False, True], [False, False]]
    stricter = alike_pairs(
        torch.tensor([1, 2, 3]), torch.tensor([7, 2]), look_a, look_b, above=0.99
    )
    assert stricter.tolist() == [[False, False], [False, True], [False, False]]


def test_items_without_any_look_are_told_by_their_keys() -> None:
    keys = torch.tensor([1, 2, 1])
    alike = alike_pairs(keys, keys, torch.zeros(3, 0), torch.zeros(3, 0))
    assert alike.tolist() == [[True, False, True], [False, True, False], [True, False, True]]


def test_one_expert_for_everything_has_the_balance_loss_on_paper() -> None:
    probabilities = torch.zeros(6, 3, 4)
    probabilities[..., 2] = 1
    # 1/4 (3 x (0 - 1/4)^2 + (1 - 1/4)^2)
    assert balance_loss(probabilities).item() == pytest.approx(0.1875)


def test_balance_is_that_of_the_batch_and_not_of_each_sample() -> None:
    """Half the samples go to each expert: as balanced as can be, and no sample is."""
    probabilities = torch.zeros(4, 3, 2)
    probabilities[:2, :, 0] = 1
    probabilities[2:, :, 1] = 1
    per_sample = (probabilities.mean(dim=1) - 0.5).square().mean()  # the published code
    assert per_sample.item() == pytest.approx(0.25)
    assert balance_loss(probabilities).item() == 0


def test_balance_is_float32_under_autocast() -> None:
    probabilities = rows(64, 5, 4, seed=0).softmax(dim=-1)
    shares = probabilities.double().mean(dim=(0, 1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = balance_loss(probabilities)
    assert loss.dtype is torch.float32
    assert loss.item() == pytest.approx(float((shares - 0.25).square().mean()), rel=1e-4)


@pytest.mark.parametrize("shape", [(4, 0, 3), (0, 2, 3)])
def test_without_steps_nothing_is_out_of_balance(shape: tuple[int, ...]) -> None:
    probabilities = torch.zeros(shape, requires_grad=True)
    loss = balance_loss(probabilities)
    torch.autograd.backward(loss)
    assert loss.item() == 0


def test_routing_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\[batch, steps, experts\]"):
        balance_loss(torch.zeros(4, 3))


def test_vectors_that_have_not_moved_are_held() -> None:
    reference = rows(5, 8, seed=0)
    vectors = (3 * reference).requires_grad_()
    loss = hold_loss(vectors, reference)
    torch.autograd.backward(loss)
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert vectors.grad is not None
    assert vectors.grad.abs().max() < 1e-6


def test_hold_is_the_move_of_each_row_and_the_bend_of_their_neighbourhood() -> None:
    reference = torch.eye(2)
    turned = torch.tensor([[1.0, 0.0], [1.0, 0.0]])  # the second by a right angle
    # rows: (0 + 1) / 2; similarities: two of four go from 0 to 1
    assert hold_loss(turned, reference).item() == pytest.approx(0.5 + 0.5)
    # All turned together: every row has moved, and nothing is nearer to anything.
    assert hold_loss(reference.flip(1), reference).item() == pytest.approx(1.0)


def test_rows_without_a_reference_are_not_held() -> None:
    reference = rows(4, 8, seed=0)
    vectors = rows(4, 8, seed=1)
    reference[2] = 0
    kept = torch.tensor([0, 1, 3])
    assert hold_loss(vectors, reference).item() == pytest.approx(
        hold_loss(vectors[kept], reference[kept]).item(), rel=1e-5
    )
    vectors.requires_grad_()
    nothing = hold_loss(vectors, torch.zeros(4, 8))
    torch.autograd.backward(nothing)
    assert nothing.item() == 0


def test_no_gradient_reaches_a_reference() -> None:
    reference = rows(3, 4, seed=0).requires_grad_()
    vectors = rows(3, 4, seed=1).requires_grad_()
    torch.autograd.backward(hold_loss(vectors, reference))
    assert reference.grad is None
    assert vectors.grad is not None
    with pytest.raises(ValueError, match="one shape"):
        hold_loss(vectors, reference[:2])


def test_unit_rows_agree_with_float64_and_have_its_gradient() -> None:
    x = rows(4, 6, seed=0).requires_grad_()
    weights = rows(4, 6, seed=1)
    torch.autograd.backward((unit_rows(x) * weights).sum())
    exact = x.detach().double().requires_grad_()
    torch.autograd.backward((F.normalize(exact, dim=-1) * weights).sum())
    assert x.grad is not None
    assert exact.grad is not None
    torch.testing.assert_close(x.grad.double(), exact.grad, rtol=1e-5, atol=1e-7)
