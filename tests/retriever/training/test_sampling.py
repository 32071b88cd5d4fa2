"""Which rows a step reads: every promise of the plan, for any data sets, batch and world."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch.retriever.training.examples import Example, Side
from mmsearch.retriever.training.records import Rows, listed_rows
from mmsearch.retriever.training.sampling import BatchPlan, share

SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=4)
BATCH = st.integers(1, 16)
SEED = st.integers(0, 2**32)


def rows_of_sizes(sizes: list[int], weights: dict[str, float] | None = None) -> Rows:
    """Rows without doubles, so many of each data set: "0", "1", ..."""
    return listed_rows(
        [
            Example(Side((f"q{name} {i}",)), Side((f"p{name} {i}",)), dataset=str(name))
            for name, size in enumerate(sizes)
            for i in range(size)
        ],
        weights,
    )


def rows_of_keys(queries: list[Any], positives: list[Any]) -> Rows:
    return listed_rows(
        Example(Side((str(query),)), Side((str(positive),)))
        for query, positive in zip(queries, positives, strict=True)
    )


def epoch(plan: BatchPlan, number: int = 0) -> list[list[int]]:
    start = number * plan.steps_per_epoch
    return [plan.rows_of(start + step).tolist() for step in range(plan.steps_per_epoch)]


@settings(max_examples=60)
@given(sizes=SIZES, batch=BATCH, seed=SEED, number=st.integers(0, 3))
def test_an_epoch_reads_every_row_once_and_repeats_only_to_fill_a_batch(
    sizes: list[int], batch: int, seed: int, number: int
) -> None:
    rows = rows_of_sizes(sizes)
    plan = BatchPlan(rows, batch=batch, seed=seed)

    batches = epoch(plan, number)

    assert plan.steps_per_epoch == sum(-(-size // batch) for size in sizes)
    assert all(len(one) == batch for one in batches)
    assert all(len(set(rows.dataset[one].tolist())) == 1 for one in batches)
    seen = Counter(row for one in batches for row in one)
    assert set(seen) == set(range(len(rows)))
    for name, size in enumerate(sizes):
        mine = [count for row, count in seen.items() if rows.dataset[row] == name]
        assert sum(mine) == -(-size // batch) * batch
        # The fill is spread: no row is repeated before every other one is.
        assert max(mine) - min(mine) <= 1


@settings(max_examples=40)
@given(sizes=SIZES, batch=BATCH, seed=SEED, start=st.integers(0, 60))
def test_a_run_that_resumes_reads_the_same_tail(
    sizes: list[int], batch: int, seed: int, start: int
) -> None:
    rows = rows_of_sizes(sizes)
    whole = BatchPlan(rows, batch=batch, seed=seed)
    before = [whole.rows_of(step).tolist() for step in range(start + 5)]

    resumed = BatchPlan(rows, batch=batch, seed=seed)

    assert [resumed.rows_of(step).tolist() for step in range(start, start + 5)] == before[start:]


@given(count=st.integers(0, 100), size=st.integers(1, 12))
def test_the_shares_of_all_processes_are_the_batch(count: int, size: int) -> None:
    batch = list(range(count))

    shares = [batch[share(count, rank, size)] for rank in range(size)]

    assert [row for one in shares for row in one] == batch
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@settings(max_examples=60)
@given(
    data=st.data(),
    batch=st.integers(2, 8),
    num_batches=st.integers(2, 8),
    seed=SEED,
    side=st.integers(0, 1),
)
def test_rows_of_one_key_are_in_different_batches_wherever_there_are_enough(
    data: st.DataObject, batch: int, num_batches: int, seed: int, side: int
) -> None:
    total = batch * num_batches
    group = st.integers(1, num_batches)  # no key recurs more often than there are batches
    keys: list[int] = []
    while len(keys) < total:
        keys += [len(keys)] * min(data.draw(group), total - len(keys))
    unique = list(range(total))
    rows = rows_of_keys(*((keys, unique) if side == 0 else (unique, keys)))

    for one in epoch(BatchPlan(rows, batch=batch, seed=seed)):
        assert len(set(rows.keys[one, side].tolist())) == batch


def test_keys_that_recur_on_both_sides_are_parted_nearly_always() -> None:
    # A grid: each of 40 queries with 3 positives, each of 40 positives with 3 queries.
    pairs = [(q, (q + shift) % 40) for q in range(40) for shift in (0, 7, 19)]
    rows = rows_of_keys([f"q{q}" for q, _ in pairs], [f"p{p}" for _, p in pairs])

    doubles = 0
    for one in epoch(BatchPlan(rows, batch=12, seed=0)):
        doubles += sum(12 - len(set(rows.keys[one, side].tolist())) for side in (0, 1))

    assert doubles <= 2


def test_a_data_set_of_two_classes_is_dealt_evenly_and_at_once() -> None:
    rows = rows_of_keys(list(range(2_000)), [i % 2 for i in range(2_000)])

    batches = epoch(BatchPlan(rows, batch=100, seed=0))

    assert all(Counter((np.array(one) % 2).tolist()) == {0: 50, 1: 50} for one in batches)


def test_batches_of_every_data_set_are_spread_over_the_epoch() -> None:
    rows = rows_of_sizes([160, 40, 16])
    plan = BatchPlan(rows, batch=4, seed=3)

    order = [int(rows.dataset[one[0]]) for one in epoch(plan)]

    for name, batches in ((0, 40), (1, 10), (2, 4)):
        places = [place / len(order) for place, one in enumerate(order) if one == name]
        for nth, place in enumerate(places):
            assert abs(place - (nth + 0.5) / batches) < 1.0 / batches


@settings(max_examples=30)
@given(
    size=st.integers(1, 30),
    weight=st.sampled_from([0.25, 0.5, 1.0, 1.5, 3.0]),
    batch=st.integers(1, 8),
    seed=SEED,
)
def test_a_weight_is_how_often_an_epoch_draws_a_row(
    size: int, weight: float, batch: int, seed: int
) -> None:
    plan = BatchPlan(rows_of_sizes([size], {"0": weight}), batch=batch, seed=seed)

    drawn = max(round(weight * size), 1)

    assert plan.steps_per_epoch == -(-drawn // batch)
    if drawn % batch == 0 and drawn == weight * size:
        seen = Counter(row for number in range(4) for one in epoch(plan, number) for row in one)
        assert set(seen.values()) == {int(4 * weight)}


def test_epochs_and_seeds_differ() -> None:
    rows = rows_of_sizes([64])
    plan, other = BatchPlan(rows, batch=8, seed=0), BatchPlan(rows, batch=8, seed=1)

    assert epoch(plan, 0) != epoch(plan, 1)
    assert epoch(plan, 0) != epoch(other, 0)


@settings(max_examples=40)
@given(sizes=SIZES, batch=BATCH, seed=SEED, step=st.integers(0, 30))
def test_rows_that_stand_in_are_others_of_the_same_data_set(
    sizes: list[int], batch: int, seed: int, step: int
) -> None:
    rows = rows_of_sizes(sizes)
    plan = BatchPlan(rows, batch=batch, seed=seed)
    planned = plan.rows_of(step).tolist()
    name = rows.dataset[planned[0]]
    others = set(np.flatnonzero(rows.dataset == name).tolist()) - set(planned)

    spares = [plan.spare(step, place=0, attempt=attempt) for attempt in range(len(others))]

    assert set(spares) == others  # every attempt another one, until all were tried
    assert rows.dataset[plan.spare(step, place=0, attempt=len(others))] == name
    assert spares == [BatchPlan(rows, batch=batch, seed=seed).spare(step, 0, i) for i, _ in
                      enumerate(spares)]  # fmt: skip


def test_places_do_not_all_turn_to_the_same_stand_in() -> None:
    plan = BatchPlan(rows_of_sizes([1_000]), batch=100, seed=0)

    assert len({plan.spare(0, place, 0) for place in range(100)}) > 90


def test_one_pair_is_a_batch_of_itself() -> None:
    plan = BatchPlan(rows_of_sizes([1]), batch=3, seed=0)

    assert epoch(plan) == [[0, 0, 0]]
    assert plan.spare(0, 0, 5) == 0


def test_no_rows_and_no_batch_are_refused() -> None:
    with pytest.raises(ValueError, match="there is no row"):
        BatchPlan(rows_of_sizes([]), batch=4, seed=0)
    with pytest.raises(ValueError, match="at least 1 row"):
        BatchPlan(rows_of_sizes([4]), batch=0, seed=0)
    with pytest.raises(ValueError, match="rank 2 of 2"):
        share(8, 2, 2)
