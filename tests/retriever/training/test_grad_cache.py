"""GradCache gives the gradient that one pass over the whole batch would give."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor
from toy_objective import (
    MARKED,
    STAGE,
    ToyObjective,
    assert_same,
    gradients,
    joined,
    toy_chunk,
    toy_training,
)

from mmsearch.retriever.training.examples import TrainingBatch
from mmsearch.retriever.training.gathering import World
from mmsearch.retriever.training.grad_cache import backward
from mmsearch.retriever.training.objective import Loss, Representations, Stage

if TYPE_CHECKING:
    from mmsearch.retriever.models.checkpoint import Model

ALONE = World()
CHUNKS = (
    toy_chunk(3, 2, seed=1),
    toy_chunk(2, seed=2, mark=MARKED),
    toy_chunk(1, 3, seed=3),
    toy_chunk(4, 1, seed=4),
)
SEEDS = (11, 12, 13, 14)


def direct(
    model: "Model",
    objective: ToyObjective,
    chunks: Sequence[TrainingBatch] = CHUNKS,
    seeds: Sequence[int] = SEEDS,
    *,
    autocast: torch.dtype | None = None,
) -> Loss:
    """Every chunk with its graph, one loss, one backward: as much memory as it takes."""
    rows: dict[str, list[Tensor]] = {}
    first_row = 0
    for chunk, seed in zip(chunks, seeds, strict=True):
        torch.manual_seed(seed)
        with torch.autocast("cpu", dtype=autocast, enabled=autocast is not None):
            represented = objective.represent(model, chunk, STAGE)
        for name, tensor in represented.items():
            shift = first_row if name == "negative_of" else 0
            rows.setdefault(name, []).append(tensor + shift if shift else tensor)
        first_row += len(chunk)
    loss = objective.loss({name: torch.cat(parts) for name, parts in rows.items()}, STAGE)
    torch.autograd.backward(loss.total)
    return loss


def cached(
    model: "Model",
    objective: ToyObjective,
    chunks: Sequence[TrainingBatch] = CHUNKS,
    seeds: Sequence[int] = SEEDS,
    *,
    autocast: torch.dtype | None = None,
    scale: float = 1.0,
) -> Loss:
    return backward(
        model,
        objective,
        chunks,
        STAGE,
        world=ALONE,
        seeds=seeds,
        autocast=autocast,
        scale=scale,
    )


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
@pytest.mark.parametrize("num_chunks", [1, 2, 4])
def test_chunks_give_the_direct_gradient(
    dropout: float, autocast: torch.dtype | None, num_chunks: int
) -> None:
    chunks, seeds = CHUNKS[:num_chunks], SEEDS[:num_chunks]
    model, objective = toy_training(dropout=dropout)
    expected_loss = direct(model, objective, chunks, seeds, autocast=autocast)
    expected, buffers = gradients(model, objective), dict(model.named_buffers())

    model, objective = toy_training(dropout=dropout)
    loss = cached(model, objective, chunks, seeds, autocast=autocast)
    tolerance = 1e-4 if autocast is None else 2e-2
    assert_same(gradients(model, objective), expected, rtol=tolerance, atol=tolerance / 100)
    assert loss.total.item() == pytest.approx(expected_loss.total.item(), rel=1e-6)
    assert {name: part.item() for name, part in loss.parts.items()} == pytest.approx(
        {name: part.item() for name, part in expected_loss.parts.items()}, rel=1e-6
    )
    for name, buffer in model.named_buffers():  # each pass counted once
        torch.testing.assert_close(buffer, buffers[name], msg=name)


def test_chunks_give_the_gradient_of_one_large_batch() -> None:
    chunks = [toy_chunk(3, 2, seed=1), toy_chunk(2, seed=2), toy_chunk(4, 1, seed=4)]
    model, objective = toy_training()
    direct(model.eval(), objective, [joined(chunks)], [0])
    expected = gradients(model, objective)

    model, objective = toy_training()
    cached(model.eval(), objective, chunks, SEEDS[:3])
    assert_same(gradients(model, objective), expected)


def test_bfloat16_points_where_float32_does() -> None:
    model, objective = toy_training()
    cached(model.eval(), objective, autocast=torch.bfloat16)
    rough = model.get_parameter("inside.weight").grad
    assert rough is not None
    assert rough.dtype is torch.float32  # the weights are float32, and so is what moves them
    model, objective = toy_training()
    cached(model.eval(), objective)
    exact = model.get_parameter("inside.weight").grad
    assert exact is not None
    assert torch.cosine_similarity(rough.flatten(), exact.flatten(), dim=0) > 0.999
    assert not torch.equal(rough, exact)


def test_dropout_is_drawn_from_the_seeds_and_from_nothing_else() -> None:
    found = []
    for seeds, before in ((SEEDS, 1), (SEEDS, 2), ((11, 12, 13, 15), 1)):
        model, objective = toy_training(dropout=0.4)
        torch.manual_seed(before)
        state = torch.get_rng_state()
        cached(model, objective, seeds=seeds)
        assert torch.equal(torch.get_rng_state(), state)
        gradient = model.get_parameter("outside.weight").grad
        assert gradient is not None
        found.append(gradient)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_the_last_chunk_is_represented_once_and_every_other_twice() -> None:
    model, objective = toy_training()
    cached(model, objective, CHUNKS[:1], SEEDS[:1])
    assert objective.num_represented == 1
    cached(model, objective)
    assert objective.num_represented == 1 + 4 + 3


def test_no_more_than_one_chunk_is_in_memory() -> None:
    class Saved:
        """What the graph keeps for its backward."""

        alive = 0

        def __init__(self, tensor: Tensor) -> None:
            self.tensor = tensor.detach()  # a node that held its own output would never die
            Saved.alive += 1

        def __del__(self) -> None:
            Saved.alive -= 1

    class Watched(ToyObjective):
        alive_before: tuple[int, ...] = ()

        def represent(self, model: "Model", batch: TrainingBatch, stage: Stage) -> Representations:
            self.alive_before += (Saved.alive,)
            return super().represent(model, batch, stage)

    model, _ = toy_training()
    objective = Watched()
    with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
        cached(model, objective)
    assert objective.alive_before == (0,) * 7


def test_rows_are_copied_out_of_what_they_are_a_view_of() -> None:
    class Views(ToyObjective):
        storages: tuple[int, ...] = ()

        def represent(self, model: "Model", batch: TrainingBatch, stage: Stage) -> Representations:
            rows = dict(super().represent(model, batch, stage))
            states = rows["query.gen"][:, None].expand(-1, 50, -1).contiguous()
            return rows | {"query.gen": states[:, -1]}

        def loss(self, representations: Representations, stage: Stage) -> Loss:
            self.storages = tuple(
                rows.untyped_storage().nbytes() // max(rows.nbytes, 1)
                for rows in representations.values()
            )
            return super().loss(representations, stage)

    model, _ = toy_training()
    objective = Views()
    cached(model, objective)
    assert set(objective.storages) == {1}


def test_gradients_are_added_to_those_there_are() -> None:
    model, objective = toy_training()
    cached(model.eval(), objective)
    once = {n: None if g is None else g.clone() for n, g in gradients(model, objective).items()}
    cached(model, objective, scale=0.5)
    assert_same(
        gradients(model, objective), {n: None if g is None else 1.5 * g for n, g in once.items()}
    )


def test_scale_is_of_the_gradient_and_not_of_the_loss() -> None:
    model, objective = toy_training()
    loss = cached(model.eval(), objective)
    whole = gradients(model, objective)
    model, objective = toy_training()
    scaled = cached(model.eval(), objective, scale=0.25)
    assert_same(
        gradients(model, objective), {n: None if g is None else 0.25 * g for n, g in whole.items()}
    )
    assert scaled.total == loss.total
    assert not scaled.total.requires_grad
    assert not any(part.requires_grad for part in scaled.parts.values())


def test_what_is_frozen_or_never_used_has_no_gradient() -> None:
    model, objective = toy_training()
    model.get_parameter("inside.weight").requires_grad_(False)
    cached(model, objective)
    assert model.get_parameter("inside.weight").grad is None
    assert model.get_parameter("never").grad is None
    assert model.get_parameter("sometimes").grad is not None
    assert objective.extras.get_parameter("decoder.weight").grad is not None


def test_a_loss_of_its_own_parameters_alone_needs_no_second_pass() -> None:
    class Alone(ToyObjective):
        def loss(self, representations: Representations, stage: Stage) -> Loss:
            total = self.extras.get_parameter("log_temperature") ** 2
            return Loss(total, {})

    model, _ = toy_training()
    objective = Alone()
    cached(model, objective)
    assert objective.num_represented == 4
    assert objective.extras.get_parameter("log_temperature").grad == -2
    assert model.get_parameter("inside.weight").grad is None


def test_two_parameters_of_the_loss_may_be_given_one_gradient() -> None:
    class Sum(ToyObjective):
        def loss(self, representations: Representations, stage: Stage) -> Loss:
            of_rows = super().loss(representations, stage)
            bias = self.extras.get_parameter("decoder.bias")
            other = self.extras.get_parameter("other")
            return Loss((bias + other).sum() + of_rows.total, of_rows.parts)

    def prepared() -> tuple["Model", ToyObjective]:
        model, _ = toy_training()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            objective = Sum()
        objective.extras.register_parameter("other", torch.nn.Parameter(torch.zeros(6)))
        return model, objective

    model, objective = prepared()
    direct(model, objective)
    expected = gradients(model, objective)
    model, objective = prepared()
    cached(model, objective)
    assert_same(gradients(model, objective), expected)


def test_an_autocast_around_it_changes_nothing() -> None:
    found = []
    for around in (False, True):
        for inside in (None, torch.bfloat16):
            model, objective = toy_training()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=around):
                model.eval()(CHUNKS[0].query.batch, is_marked=False)  # casts are kept
                with torch.no_grad():
                    model.get_parameter("outside.weight").add_(0.5)
                cached(model, objective, autocast=inside)
            found.append(gradients(model, objective))
    assert_same(found[2], found[0], rtol=0, atol=0)
    assert_same(found[3], found[1], rtol=0, atol=0)


def test_it_asks_for_gradients_itself() -> None:
    model, objective = toy_training()
    with torch.no_grad():
        cached(model, objective)
    assert model.get_parameter("inside.weight").grad is not None


def test_one_pair_and_rows_of_zeros_give_finite_gradients() -> None:
    alone = toy_chunk(1, seed=5)
    alone.query.batch.zero_()
    alone.query.look.zero_()
    model, objective = toy_training()
    loss = cached(model, objective, [alone], [0])
    assert loss.parts["contrast"] == 0
    assert all(g is None or g.isfinite().all() for g in gradients(model, objective).values())


def test_a_nan_is_in_the_loss_that_is_returned() -> None:
    broken = toy_chunk(2, seed=5)
    broken.query.batch[1, 0] = math.nan
    model, objective = toy_training()
    assert cached(model, objective, [CHUNKS[0], broken], [0, 1]).total.isnan()


class Short(ToyObjective):
    def represent(self, model: "Model", batch: TrainingBatch, stage: Stage) -> Representations:
        rows = dict(super().represent(model, batch, stage))
        return rows | {"query.ce": rows["query.ce"][:1]}


class Forgetful(ToyObjective):
    def represent(self, model: "Model", batch: TrainingBatch, stage: Stage) -> Representations:
        rows = dict(super().represent(model, batch, stage))
        if batch.negatives is None:
            del rows["query.ce"]
        return rows


class Deaf(ToyObjective):
    def loss(self, representations: Representations, stage: Stage) -> Loss:
        return Loss(representations["positive.look"].sum(), {})


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (Short(), r"'query.ce' has the shape \[1\], and the chunk has 3 rows"),
        (Forgetful(), "'query.ce' has 8 rows where there are 10 pairs"),
        (Deaf(), "the loss reads nothing that is trained"),
    ],
)
def test_objectives_that_break_their_promise_are_refused(
    objective: ToyObjective, message: str
) -> None:
    model, _ = toy_training()
    with pytest.raises(ValueError, match=message):
        cached(model, objective)


def test_nothing_to_train_or_to_train_on_is_refused() -> None:
    model, objective = toy_training()
    with pytest.raises(ValueError, match="each chunk has a seed"):
        cached(model, objective, seeds=SEEDS[:2])
    with pytest.raises(ValueError, match="the batch has no pairs"):
        cached(model, objective, [], [])
    model.requires_grad_(False)
    objective.extras.requires_grad_(False)
    with pytest.raises(ValueError, match="nothing is trained"):
        cached(model, objective)
