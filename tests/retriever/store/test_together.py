"""One look for all who ask at once, and nobody is told of a look begun before he asked."""

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from mmsearch.retriever.store.together import Together

PATIENCE_S = 20.0


class Looks:
    """A look that takes until it is let through, and sees how many have begun."""

    def __init__(self) -> None:
        self.num = 0
        self.has_begun = threading.Semaphore(0)
        self.may_end = threading.Semaphore(0)
        self.fails = False

    def __call__(self) -> int:
        self.num += 1
        seen = self.num
        self.has_begun.release()
        assert self.may_end.acquire(timeout=PATIENCE_S)
        if self.fails:
            raise OSError("the folder is gone")
        return seen


def asked_meanwhile(looks: Looks, ask: Callable[[], int], num: int) -> list[int | BaseException]:
    """Ask once, then ``num`` times while that look is under way; return what all are told."""
    arrived = threading.Semaphore(0)

    def arrive() -> int:
        arrived.release()
        return ask()

    with ThreadPoolExecutor(num + 1) as pool:
        first = pool.submit(ask)
        assert looks.has_begun.acquire(timeout=PATIENCE_S)
        others = [pool.submit(arrive) for _ in range(num)]
        for _ in others:
            assert arrived.acquire(timeout=PATIENCE_S)
        looks.may_end.release(num + 1)
        return [one.exception(PATIENCE_S) or one.result() for one in (first, *others)]


def test_who_asks_during_a_look_is_told_of_a_later_one() -> None:
    looks = Looks()
    together = Together(looks, threading.RLock())

    first, *others = asked_meanwhile(looks, together.ask, 16)

    assert first == 1
    assert min(told for told in others if isinstance(told, int)) >= 2


def test_many_at_once_cost_few_looks() -> None:
    looks = Looks()
    together = Together(looks, threading.RLock())

    asked_meanwhile(looks, together.ask, 16)

    # The first, the one they share, and one for each who arrived while that had begun.
    assert looks.num < 17


def test_one_after_the_other_everybody_looks_anew() -> None:
    looks = Looks()
    looks.may_end.release(3)
    together = Together(looks, threading.RLock())

    assert [together.ask() for _ in range(3)] == [1, 2, 3]


def test_a_look_that_fails_is_told_to_all_who_waited_and_the_next_is_another() -> None:
    looks = Looks()
    together = Together(looks, threading.RLock())
    looks.fails = True

    told = asked_meanwhile(looks, together.ask, 4)

    assert {type(one) for one in told} == {OSError}
    looks.fails = False
    looks.may_end.release()
    assert together.ask() == looks.num


class InterruptedOnce(contextlib.AbstractContextManager[None]):
    """A turn whose first holder is interrupted while waiting for it."""

    def __init__(self) -> None:
        self.is_first = True

    def __enter__(self) -> None:
        was_first, self.is_first = self.is_first, False
        if was_first:
            raise KeyboardInterrupt

    def __exit__(self, *raised: object) -> None:
        return None


def test_who_is_interrupted_while_waiting_keeps_nobody_else_from_looking() -> None:
    looks = Looks()
    looks.may_end.release()
    together = Together(looks, InterruptedOnce())

    with pytest.raises(KeyboardInterrupt):
        together.ask()

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(together.ask).result(PATIENCE_S) == 1
