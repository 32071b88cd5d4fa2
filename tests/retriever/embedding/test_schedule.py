"""Both schedules give the same answers in the same order; they differ in who waits."""

import threading
from collections.abc import Callable, Iterator

import pytest

from mmsearch.retriever.embedding.schedule import LookAhead, Schedule, SideBySide

SCHEDULES: list[Callable[[], Schedule]] = [
    lambda: SideBySide(1),
    lambda: SideBySide(3),
    lambda: LookAhead(1),
    lambda: LookAhead(3),
]
every_schedule = pytest.mark.parametrize(
    "make", SCHEDULES, ids=["one", "side by side", "one ahead", "three ahead"]
)
WAIT_S = 20.0  # a test that waits so long has failed


@every_schedule
@pytest.mark.parametrize("count", [0, 1, 2, 7, 30])
def test_every_job_is_done_once_and_in_order(make: Callable[[], Schedule], count: int) -> None:
    done = make().run(range(count), lambda job: job * 10, lambda job, ready: (job, ready))

    assert list(done) == [(job, job * 10) for job in range(count)]


@every_schedule
@pytest.mark.parametrize("step", ["prepare", "compute"])
def test_an_error_of_either_step_reaches_the_caller(
    make: Callable[[], Schedule], step: str
) -> None:
    def prepare(job: int) -> int:
        if step == "prepare" and job == 2:
            raise KeyError("job 2")
        return job

    def compute(job: int, ready: int) -> int:
        if step == "compute" and job == 2:
            raise KeyError("job 2")
        return ready

    schedule = make()
    done = schedule.run(range(50), prepare, compute)

    assert [next(done), next(done)] == [0, 1]
    with pytest.raises(KeyError, match="job 2"):
        next(done)
    assert list(schedule.run([5], prepare, compute)) == [5]  # and it goes on


@every_schedule
def test_calls_of_several_threads_do_not_mix(make: Callable[[], Schedule]) -> None:
    schedule, wrong = make(), []

    def work(base: int) -> None:
        expected = [base + job for job in range(20)]
        for _ in range(5):
            if list(schedule.run(expected, lambda job: job, lambda _, ready: ready)) != expected:
                wrong.append(base)

    threads = [threading.Thread(target=work, args=(100 * i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []


def test_looking_ahead_prepares_so_many_and_no_more() -> None:
    prepared: list[int] = []
    ahead = threading.Event()

    def prepare(job: int) -> int:
        prepared.append(job)
        if len(prepared) == 4:
            ahead.set()
        return job

    computed = LookAhead(3).run(range(20), prepare, lambda job, _: (job, ahead.wait(WAIT_S)))

    assert next(computed) == (0, True)  # three more were prepared while the first computed
    assert sorted(prepared) == [0, 1, 2, 3]


def test_jobs_are_cut_when_they_are_prepared_and_not_before() -> None:
    size = 8
    left = 40

    def jobs() -> Iterator[int]:
        nonlocal left
        while left > 0:
            left -= size
            yield size

    sizes: list[int] = []
    for done in LookAhead(2).run(jobs(), lambda job: job, lambda job, _: job):
        sizes.append(done)
        size = 4  # what the first one taught

    assert sizes == [8, 8, 8, 4, 4, 4, 4]  # the first, two ahead of it, and the rest


def test_one_job_computes_at_a_time_whoever_asks() -> None:
    schedule, inside, most = LookAhead(3), 0, 0
    counting = threading.Lock()
    together = threading.Barrier(2)

    def compute(job: int, _: int) -> int:
        nonlocal inside, most
        with counting:
            inside += 1
            most = max(most, inside)
        threading.Event().wait(0.002)
        with counting:
            inside -= 1
        return job

    def work() -> None:
        together.wait(WAIT_S)
        list(schedule.run(range(10), lambda job: job, compute))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert most == 1


def test_side_by_side_computes_several_at_once() -> None:
    together = threading.Barrier(3)

    done = SideBySide(3).run(range(3), lambda job: job, lambda *_: together.wait(WAIT_S))

    assert sorted(done) == [0, 1, 2]  # each of three threads met the two others
