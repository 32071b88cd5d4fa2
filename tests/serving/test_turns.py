"""Whose media are decoded: a few at once, some wait, the rest is told to come back."""

import asyncio
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from mmsearch.errors import Abandoned, Busy

pytest.importorskip("fastapi", reason="needs the extra 'serve'")

from mmsearch.serving import turns
from mmsearch.serving.turns import Turns, answer_with_media


class Request(SimpleNamespace):
    """What of a request is looked at here."""

    is_gone = False

    async def is_disconnected(self) -> bool:
        return self.is_gone


def request(at_once: int = 1, most_waiting: int = 1) -> Any:
    state = SimpleNamespace(turns=Turns(at_once, most_waiting))
    return Request(app=SimpleNamespace(state=state))


@pytest.fixture(autouse=True)
def _answered_in_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(_: Any, work: Callable[[], Any]) -> Any:
        return await asyncio.to_thread(work)

    monkeypatch.setattr(turns, "answer", answer)


def test_one_waits_for_the_other_and_a_third_is_told_to_come_back() -> None:
    async def check() -> None:
        asked, release, order = request(), threading.Event(), list[str]()

        def work(name: str) -> str:
            assert release.wait(10)
            order.append(name)
            return name

        first = asyncio.create_task(answer_with_media(asked, lambda: work("first")))
        await asyncio.sleep(0.02)
        second = asyncio.create_task(answer_with_media(asked, lambda: work("second")))
        await asyncio.sleep(0.02)
        with pytest.raises(Busy):
            await answer_with_media(asked, lambda: work("third"))
        assert order == []
        release.set()
        assert list(await asyncio.gather(first, second)) == ["first", "second"]
        assert order == ["first", "second"]

    asyncio.run(check())


@pytest.mark.parametrize("way", ["returns", "raises", "is gone", "is never begun"])
def test_every_turn_ends_once(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def check() -> None:
        asked = request(at_once=1)

        def work() -> int:
            if way == "raises":
                raise ValueError
            return 1

        if way == "is never begun":

            async def busy(*_: Any) -> None:
                raise Busy(1.0)

            with monkeypatch.context() as patch:
                patch.setattr(turns, "answer", busy)
                with pytest.raises(Busy):
                    await answer_with_media(asked, work)
        elif way == "is gone":
            asked.is_gone = True
            with pytest.raises(Abandoned):
                await answer_with_media(asked, work)
            asked.is_gone = False
        elif way == "raises":
            with pytest.raises(ValueError, match=r"^$"):
                await answer_with_media(asked, work)
        else:
            assert await answer_with_media(asked, work) == 1
        await asyncio.sleep(0)
        assert not asked.app.state.turns._free.locked()
        assert asked.app.state.turns._free._value == 1

    asyncio.run(check())


def test_a_turn_lasts_until_its_work_has_ended_though_nobody_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def check() -> None:
        asked, release = request(), threading.Event()
        working = []

        async def left(_: Any, work: Callable[[], Any]) -> None:
            working.append(asyncio.create_task(asyncio.to_thread(work)))
            await asyncio.sleep(0.02)
            raise Abandoned

        monkeypatch.setattr(turns, "answer", left)
        with pytest.raises(Abandoned):
            await answer_with_media(asked, lambda: release.wait(10))
        assert asked.app.state.turns._free.locked(), "its worker is still at it"
        release.set()
        await working[0]
        await asyncio.sleep(0.01)
        assert not asked.app.state.turns._free.locked()

    asyncio.run(check())
