"""What stages of a run hand on to each other, and how far one may be ahead."""

import threading

import pytest

from mmsearch.indexers.channel import Channel, Stopped

GRACE_S = 10.0


def putting(channel: Channel[str], thing: str, num_bytes: int = 0) -> threading.Thread:
    """A thread that puts one thing; it is still alive where it has to wait."""

    def put() -> None:
        try:
            channel.put(thing, num_bytes)
        except Stopped:
            stopped.append(thing)

    stopped: list[str] = []
    thread = threading.Thread(target=put)
    thread.stopped = stopped  # type: ignore[attr-defined]
    thread.start()
    return thread


def test_things_come_in_the_order_they_were_put_until_it_is_over() -> None:
    channel: Channel[str] = Channel(most=10, most_bytes=100)
    channel.put("a")
    channel.put("b")
    channel.end()

    assert [channel.take(0), channel.take(0), channel.take(GRACE_S)] == ["a", "b", None]
    assert channel.is_over


def test_nothing_comes_in_time_where_nothing_was_put() -> None:
    channel: Channel[str] = Channel(most=10, most_bytes=100)

    assert channel.take(0.01) is None
    assert not channel.is_over


@pytest.mark.parametrize(("most", "most_bytes"), [(1, 100), (10, 12)], ids=["count", "bytes"])
def test_who_is_ahead_waits_for_room(most: int, most_bytes: int) -> None:
    channel: Channel[str] = Channel(most=most, most_bytes=most_bytes)
    channel.put("a", 10)
    waiting = putting(channel, "b", 10)
    waiting.join(0.1)
    assert waiting.is_alive(), "it went in beyond the bound"

    assert channel.take(0) == "a"
    waiting.join(GRACE_S)
    assert channel.take(0) == "b"
    assert channel.waited_s > 0.05


def test_one_thing_larger_than_the_bound_goes_in_alone() -> None:
    channel: Channel[str] = Channel(most=10, most_bytes=12)

    channel.put("film", 1_000)

    assert channel.take(0) == "film"


def test_who_waits_is_told_that_nobody_will_take_it() -> None:
    channel: Channel[str] = Channel(most=1, most_bytes=100)
    channel.put("a")
    waiting = putting(channel, "b")
    channel.stop()
    waiting.join(GRACE_S)

    assert waiting.stopped == ["b"]  # type: ignore[attr-defined]
    with pytest.raises(Stopped):
        channel.put("c")
