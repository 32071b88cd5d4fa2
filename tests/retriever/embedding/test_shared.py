"""Calls of many threads become few calls of the model, and none pays for another."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest
from conftest import WORDS, WordEmbedder

from mmsearch.errors import Abandoned, BadVectors, Busy
from mmsearch.retriever.embedding.giving_up import Cancellation, heard_by
from mmsearch.retriever.embedding.shared import SharedEmbedder
from mmsearch.values import Item, Role

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mmsearch.values import Vectors


class GatedEmbedder(WordEmbedder):
    """Says what it was called with, and computes only when the gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.asked: list[tuple[Role, list[Item]]] = []
        self.entered = threading.Semaphore(0)

    def embed(self, items: Sequence[Item], *, role: Role | str = Role.DOCUMENT) -> "Vectors":
        self.asked.append((Role(role), list(items)))
        self.entered.release()
        assert self.gate.wait(10)
        return super().embed(items, role=role)


@pytest.fixture
def model() -> GatedEmbedder:
    return GatedEmbedder()


@pytest.fixture
def threads() -> "Iterator[ThreadPoolExecutor]":
    with ThreadPoolExecutor(32) as pool:
        yield pool


def until(holds: Callable[[], bool]) -> None:
    """Wait for what another thread is about to do."""
    for _ in range(2_000):
        if holds():
            return
        time.sleep(0.005)
    raise AssertionError("it did not come to pass")


def busy(
    model: GatedEmbedder, shared: SharedEmbedder, threads: ThreadPoolExecutor
) -> "Future[Vectors]":
    """Return a first call, which is being computed until the gate opens."""
    first = threads.submit(shared.embed, [Item("cat")])
    model.entered.acquire()
    return first


def two_together(model: GatedEmbedder, shared: SharedEmbedder, threads: ThreadPoolExecutor) -> None:
    """Have two calls computed in one batch, the last; the first keeps the model busy."""
    first = busy(model, shared, threads)
    two = [threads.submit(shared.embed, [Item("dog")]) for _ in range(2)]
    until(lambda: shared.num_waiting == 2)
    model.gate.set()
    for call in (first, *two):
        call.result()


def test_a_call_alone_is_what_the_model_says(embedder: WordEmbedder) -> None:
    items = [Item(word) for word in WORDS]

    shared = SharedEmbedder(embedder)

    np.testing.assert_array_equal(shared.embed(items), embedder.embed(items))
    assert shared.embed([]).shape == (0, embedder.space.dim)
    assert (shared.space, shared.calibration) == (embedder.space, embedder.calibration)


def test_calls_that_come_while_the_model_computes_are_one_batch(
    model: GatedEmbedder, threads: ThreadPoolExecutor
) -> None:
    shared = SharedEmbedder(model)
    first = busy(model, shared, threads)
    calls = {word: threads.submit(shared.embed, [Item(word)]) for word in WORDS}
    until(lambda: shared.num_waiting == len(WORDS))

    model.gate.set()

    for word, call in calls.items():
        np.testing.assert_array_equal(call.result(), WordEmbedder().embed([Item(word)]))
    first.result()
    assert [len(items) for _, items in model.asked] == [1, len(WORDS)]


def test_questions_and_documents_are_not_mixed_and_take_turns(
    model: GatedEmbedder, threads: ThreadPoolExecutor
) -> None:
    shared = SharedEmbedder(model, batch_s=1e-9)  # batches as small as they get
    long = threads.submit(shared.embed, [Item("cat")] * 2_000, role=Role.DOCUMENT)
    model.entered.acquire()
    question = threads.submit(shared.embed, [Item("dog")], role=Role.QUERY)
    until(lambda: shared.num_waiting == 2)

    model.gate.set()
    question.result()
    long.result()

    assert [role for role, _ in model.asked][:3] == [Role.DOCUMENT, Role.QUERY, Role.DOCUMENT]
    assert all(len(items) <= model.call_tokens for _, items in model.asked)


def test_a_short_call_does_not_wait_for_the_whole_of_a_long_one(
    model: GatedEmbedder, threads: ThreadPoolExecutor
) -> None:
    shared = SharedEmbedder(model)
    first = busy(model, shared, threads)
    long = threads.submit(shared.embed, [Item("cat")] * 500)
    until(lambda: shared.num_waiting == 1)
    short = threads.submit(shared.embed, [Item("dog")])
    until(lambda: shared.num_waiting == 2)

    model.gate.set()
    short.result()
    long.result()
    first.result()

    assert len(model.asked[1][1]) == model.call_tokens  # both had a share of the next batch
    assert model.asked[1][1][0].text == "dog"
    assert long.result().shape == (500, model.space.dim)


def test_the_oldest_call_goes_on_however_many_short_ones_come(
    model: GatedEmbedder, threads: ThreadPoolExecutor
) -> None:
    shared = SharedEmbedder(model)
    first = busy(model, shared, threads)
    long = threads.submit(shared.embed, [Item("cat")] * 3)
    until(lambda: shared.num_waiting == 1)
    short = [threads.submit(shared.embed, [Item("dog")]) for _ in range(model.call_tokens + 2)]
    until(lambda: shared.num_waiting == len(short) + 1)

    model.gate.set()
    for call in (first, long, *short):
        call.result()

    assert "cat" in [item.text for item in model.asked[1][1]]
    assert len(model.asked[1][1]) == model.call_tokens


def test_rows_of_a_call_that_was_cut_are_in_its_order(threads: ThreadPoolExecutor) -> None:
    shared = SharedEmbedder(WordEmbedder())
    rng = np.random.default_rng(0)
    lists = [[Item(WORDS[n]) for n in rng.integers(len(WORDS), size=97)] for _ in range(12)]

    results = list(threads.map(shared.embed, lists))

    for items, vectors in zip(lists, results, strict=True):
        np.testing.assert_array_equal(vectors, WordEmbedder().embed(items))


def test_one_bad_item_fails_its_own_call_only(
    model: GatedEmbedder, threads: ThreadPoolExecutor
) -> None:
    shared = SharedEmbedder(model)
    first = busy(model, shared, threads)
    good = [threads.submit(shared.embed, [Item(word)]) for word in WORDS]
    bad = threads.submit(shared.embed, [Item("poison")])
    until(lambda: shared.num_waiting == len(WORDS) + 1)

    model.gate.set()

    for call in (first, *good):
        assert call.result().shape == (1, model.space.dim)
    with pytest.raises(BadVectors):
        bad.result()
    assert shared.embed([Item("cat")]).shape == (1, model.space.dim)  # it goes on


def test_more_than_may_wait_is_told_when_to_come_back(
    model: GatedEmbedder, threads: ThreadPoolExecutor
) -> None:
    shared = SharedEmbedder(model, most_waiting=2)
    first = busy(model, shared, threads)
    waiting = [threads.submit(shared.embed, [Item("dog")]) for _ in range(2)]
    until(lambda: shared.num_waiting == 2)

    with pytest.raises(Busy) as refused:
        shared.embed([Item("cat")])

    assert refused.value.retry_after_s > 0
    model.gate.set()
    for call in (first, *waiting):
        call.result()


def test_a_call_nobody_waits_for_is_not_computed(
    model: GatedEmbedder, threads: ThreadPoolExecutor
) -> None:
    shared = SharedEmbedder(model)
    first = busy(model, shared, threads)
    gone = Cancellation()

    def ask() -> "Vectors":
        with heard_by(gone):
            return shared.embed([Item("dog")])

    left = threads.submit(ask)
    stays = threads.submit(shared.embed, [Item("pump")])
    until(lambda: shared.num_waiting == 2)

    gone.cancel()

    with pytest.raises(Abandoned):
        left.result(timeout=10)  # at once: the gate is still shut
    model.gate.set()
    stays.result()
    first.result()
    computed = [item.text for _, items in model.asked for item in items]
    assert computed == ["cat", "pump"]
    with pytest.raises(Abandoned):
        ask()  # what begins too late ends at once


def test_where_calls_came_together_the_next_batch_waits_for_as_many(
    model: GatedEmbedder, threads: ThreadPoolExecutor
) -> None:
    shared = SharedEmbedder(model, within_s=10.0)
    two_together(model, shared, threads)

    one = threads.submit(shared.embed, [Item("pump")])
    until(lambda: shared.num_waiting == 1)
    other = threads.submit(shared.embed, [Item("chart")])

    one.result(timeout=5)  # not after ten seconds: as many are there as were before
    other.result(timeout=5)
    assert [len(items) for _, items in model.asked] == [1, 2, 2]


def test_a_call_that_comes_alone_after_others_waits_no_longer_than_it_may(
    model: GatedEmbedder, threads: ThreadPoolExecutor
) -> None:
    shared = SharedEmbedder(model, within_s=0.05)
    two_together(model, shared, threads)

    assert threads.submit(shared.embed, [Item("pump")]).result(timeout=5).shape[0] == 1


def test_closing_tells_those_who_wait(model: GatedEmbedder, threads: ThreadPoolExecutor) -> None:
    shared = SharedEmbedder(model)
    first = busy(model, shared, threads)
    waiting = threads.submit(shared.embed, [Item("dog")])
    until(lambda: shared.num_waiting == 1)

    closing = threads.submit(shared.close)

    with pytest.raises(Abandoned):
        waiting.result(timeout=10)
    model.gate.set()
    closing.result(timeout=10)
    assert first.result().shape == (1, model.space.dim)  # what was begun is finished
    with pytest.raises(Abandoned):
        shared.embed([Item("cat")])
