import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from made_files import BLUE, RED, film, pdf, pdf_bomb, picture_of
from PIL import Image

from mmsearch.errors import UnreadableFile
from mmsearch.indexers.content import content_hash
from mmsearch.indexers.readers import read
from mmsearch.indexers.sandbox import ReadTask, Sandbox
from mmsearch.values import Kind, Locator, ReadPolicy, Segment

POLICY = ReadPolicy(ocr=False)


def task(path: Path, policy: ReadPolicy = POLICY, kind: Kind | None = None) -> ReadTask:
    return ReadTask(path, kind, policy)


def children() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


@pytest.fixture
def box() -> Iterator[Sandbox]:
    before = {child.pid for child in children()}
    with Sandbox(1) as made:
        yield made
    assert {child.pid for child in children()} <= before, "a worker outlived its sandbox"


def outcomes(box: Sandbox, tasks: list[ReadTask]) -> dict[str, str]:
    """Say of each file how it ended: the number of its segments, or why it failed."""
    counts: dict[str, int] = {}
    endings: dict[str, str] = {}
    for done, outcome in box.read(tasks):
        name = done.path.name
        assert name not in endings, "something came after the end of a file"
        if isinstance(outcome, Segment):
            counts[name] = counts.get(name, 0) + 1
        else:
            endings[name] = str(counts[name]) if outcome is None else outcome.reason
    return endings


def test_segments_cross_unchanged(box: Sandbox, tmp_path: Path) -> None:
    paths = {
        Kind.PDF: pdf(tmp_path / "a.pdf", "one", "two"),
        Kind.VIDEO: film(tmp_path / "a.mp4", [(2.0, RED), (2.0, BLUE)]),
        Kind.IMAGE: tmp_path / "a.png",
        Kind.TEXT: tmp_path / "a.md",
    }
    picture_of("hello").save(paths[Kind.IMAGE])
    paths[Kind.TEXT].write_text("# Grüße\n\nlone surrogate names and \U0001f600 text\n")
    for kind, path in paths.items():
        here, there = list(read(path, kind, POLICY)), box.read_one(task(path))
        assert len(here) == len(there)
        for mine, theirs in zip(here, there, strict=True):
            for name in ("kind", "locator", "text", "text_origin", "about", "thumbnail"):
                assert getattr(mine, name) == getattr(theirs, name)
            if mine.pixels is None:
                assert theirs.pixels is None
            else:
                assert theirs.pixels is not None
                assert np.array_equal(mine.pixels, theirs.pixels)
                assert theirs.pixels.flags.writeable


def test_each_file_ends_once_and_its_segments_come_in_order(tmp_path: Path) -> None:
    tasks = [task(pdf(tmp_path / f"{i}.pdf", *["words"] * (i + 1))) for i in range(7)]
    pages: dict[str, list[int | None]] = {}
    with Sandbox(3) as box:
        assert len(outcomes(box, tasks)) == 7
        for done, outcome in box.read(tasks):
            if isinstance(outcome, Segment):
                pages.setdefault(done.path.name, []).append(outcome.locator.page)
    assert pages == {f"{i}.pdf": list(range(1, i + 2)) for i in range(7)}


def test_one_page_or_a_whole_film_may_be_asked_for(box: Sandbox, tmp_path: Path) -> None:
    path = pdf(tmp_path / "a.pdf", "one", "two", "three")
    (page,) = box.read_one(ReadTask(path, Kind.PDF, POLICY, only=Locator(page=2)))
    assert page.text == "two"
    made = film(tmp_path / "a.mp4", [(2.0, RED), (2.0, BLUE)])
    (whole,) = box.read_one(ReadTask(made, None, POLICY, whole=True))
    assert whole.locator.end == pytest.approx(4.0, abs=0.05)


def test_an_unreadable_file_is_told_with_its_reason(box: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_text("<html></html>")
    with pytest.raises(UnreadableFile, match=r"a\.pdf: it is no PDF, image, video or text file"):
        box.read_one(task(tmp_path / "a.pdf"))
    with pytest.raises(UnreadableFile, match="it is not a PDF"):
        box.read_one(task(tmp_path / "a.pdf", kind=Kind.PDF))
    with pytest.raises(UnreadableFile, match="no such file"):
        box.read_one(task(tmp_path / "none.pdf"))


def test_relative_paths_and_odd_names_are_read(
    box: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = os.fsdecode("отчёт 报告 \U0001f600 ".encode() + b"\xff.md")
    box.read_one(task(pdf(tmp_path / "warm.pdf", "words")))
    monkeypatch.chdir(tmp_path)
    Path(name).write_text("hello")
    assert [one.text for one in box.read_one(task(Path(name)))] == ["hello"]


def test_a_bomb_is_ended_and_the_next_file_read(box: Sandbox, tmp_path: Path) -> None:
    hasty = replace(POLICY, step_timeout_s=1.5)
    bomb = task(pdf_bomb(tmp_path / "bomb.pdf"), hasty, Kind.PDF)
    good = task(pdf(tmp_path / "good.pdf", "words"), hasty)
    assert outcomes(box, [bomb, good]) == {
        "bomb.pdf": "it took longer than 1.5 s for one page",
        "good.pdf": "1",
    }


def test_a_file_that_takes_too_long_in_all_is_ended(box: Sandbox, tmp_path: Path) -> None:
    long = pdf(tmp_path / "long.pdf", *["words " * 300] * 250)
    hasty = replace(POLICY, document_timeout_s=0.5, step_timeout_s=30.0)
    assert outcomes(box, [task(long, hasty)]) == {"long.pdf": "it took longer than 0.5 s"}


def test_time_in_which_nobody_takes_a_segment_does_not_count(box: Sandbox, tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", [(1.5, RED), (1.5, BLUE)] * 3, size=(640, 360))
    hasty = replace(POLICY, step_timeout_s=1.5, document_timeout_s=4.0)
    box.read_one(task(path))  # the decoder is imported by now
    reading = box.read([task(path, hasty)])
    next(reading)
    time.sleep(5.0)
    assert [outcome for _, outcome in reading][-1] is None


def test_a_file_that_needs_too_much_memory_is_ended(box: Sandbox, tmp_path: Path) -> None:
    Image.new("RGB", (6000, 6000)).save(tmp_path / "large.png", compress_level=1)
    small = replace(POLICY, max_memory_bytes=200 * 2**20)
    good = task(pdf(tmp_path / "good.pdf", "words"))
    assert outcomes(box, [task(tmp_path / "large.png", small), good]) == {
        "large.png": "it needs more than 0.2 GiB of memory",
        "good.pdf": "1",
    }
    assert len(box.read_one(task(tmp_path / "large.png"))) == 1


def test_a_picture_handed_over_early_survives_the_end_of_its_worker(tmp_path: Path) -> None:
    Image.new("RGB", (6000, 6000)).save(tmp_path / "large.png", compress_level=1)
    picture_of("words").save(tmp_path / "good.png")
    small = replace(POLICY, max_memory_bytes=200 * 2**20)
    tasks = [task(tmp_path / name, small, Kind.IMAGE) for name in ("large.png", "good.png")]
    with Sandbox(1) as box:
        assert outcomes(box, tasks) == {
            "large.png": "it needs more than 0.2 GiB of memory",
            "good.png": "1",
        }


def test_a_content_hash_is_taken_where_it_is_asked_for(box: Sandbox, tmp_path: Path) -> None:
    path = pdf(tmp_path / "a.pdf", "words")
    broken = tmp_path / "broken.pdf"
    broken.write_bytes(path.read_bytes()[:200])
    tasks = [replace(task(one, kind=Kind.PDF), content_hash="") for one in (path, broken)]
    tasks.append(task(path))

    ended = [done for done, outcome in box.read(tasks) if not isinstance(outcome, Segment)]

    assert [one.content_hash for one in ended] == [content_hash(path), content_hash(broken), None]
    assert all(one.busy_s > 0 for one in ended)


def test_a_crash_is_that_files_own(tmp_path: Path) -> None:
    paths = [pdf(tmp_path / f"{name}.pdf", *["words"] * 20) for name in ("bad", "good")]
    endings: dict[str, UnreadableFile | None] = {}
    with Sandbox(1) as box:
        for done, outcome in box.read([task(path) for path in paths]):
            if not isinstance(outcome, Segment):
                endings[done.path.name] = outcome
            elif done.path.name == "bad.pdf" and outcome.locator.page == 2:
                (worker,) = children()
                worker.send_signal(signal.SIGABRT)  # what std::terminate ends with
    failed = endings.pop("bad.pdf")
    assert failed is not None
    assert failed.reason == "the reader crashed (signal SIGABRT)"
    assert endings == {"good.pdf": None}


def test_a_worker_killed_while_idle_is_replaced(box: Sandbox, tmp_path: Path) -> None:
    path = pdf(tmp_path / "a.pdf", "words")
    box.read_one(task(path))
    (worker,) = children()
    worker.kill()
    worker.wait()
    assert len(box.read_one(task(path))) == 1


def test_a_worker_serves_many_files(box: Sandbox, tmp_path: Path) -> None:
    path = pdf(tmp_path / "a.pdf", "words")
    box.read_one(task(path))
    first = [child.pid for child in children()]
    for _ in range(5):
        box.read_one(task(path))
    assert [child.pid for child in children()] == first


def test_tasks_are_drawn_when_a_worker_is_free(tmp_path: Path) -> None:
    drawn = 0

    def endless() -> Iterator[ReadTask]:
        nonlocal drawn
        while True:
            drawn += 1
            yield task(path)

    path = pdf(tmp_path / "a.pdf", "words")
    with Sandbox(2) as box:
        ended = 0
        for _, outcome in box.read(endless()):
            ended += outcome is None
            assert drawn <= ended + 2
            if ended == 20:
                break


def test_a_worker_whose_segments_nobody_takes_waits(box: Sandbox, tmp_path: Path) -> None:
    path = pdf(tmp_path / "a.pdf", *["words"] * 40)
    reading = box.read([task(path)])
    next(reading)
    (worker,) = children()
    deadline = time.monotonic() + 30
    used = -1.0
    while time.monotonic() < deadline and used != sum(worker.cpu_times()[:2]):
        used = sum(worker.cpu_times()[:2])
        time.sleep(0.5)
    assert used == sum(worker.cpu_times()[:2]), "it went on reading"
    pages = [one.locator.page for _, one in reading if isinstance(one, Segment)]
    assert pages == list(range(2, 41))


def test_pixels_that_nobody_takes_yet_are_not_written_over(box: Sandbox, tmp_path: Path) -> None:
    path = pdf(tmp_path / "a.pdf", *["words " * number for number in range(1, 21)])
    reading = box.read([task(path)])
    first = next(reading)[1]
    time.sleep(0.5)  # it could have read them all by now

    there = [first, *(one for _, one in reading if isinstance(one, Segment))]

    for mine, theirs in zip(read(path, Kind.PDF, POLICY), there, strict=True):
        assert isinstance(theirs, Segment)
        assert np.array_equal(mine.pixels, theirs.pixels)  # type: ignore[arg-type]


def test_an_abandoned_reading_leaves_nothing_behind(tmp_path: Path) -> None:
    path = pdf(tmp_path / "a.pdf", *["words"] * 20)
    gc.collect()
    before = psutil.Process().num_fds()
    with Sandbox(2) as box:
        for _ in range(3):
            reading = box.read([task(path), task(path)])
            next(reading)
            reading.close()  # type: ignore[attr-defined]
            assert children() == []
        assert len(box.read_one(task(path))) == 20
    assert children() == []
    assert psutil.Process().num_fds() == before


def test_a_failing_source_of_tasks_leaves_nothing_behind(box: Sandbox, tmp_path: Path) -> None:
    def failing() -> Iterator[ReadTask]:
        yield task(pdf(tmp_path / "a.pdf", "words"))
        raise LookupError("the disk is gone")

    with pytest.raises(LookupError, match="the disk is gone"):
        list(box.read(failing()))
    assert len(box.read_one(task(tmp_path / "a.pdf"))) == 1


def test_a_forgotten_sandbox_leaves_no_process_behind(tmp_path: Path) -> None:
    path = pdf(tmp_path / "a.pdf", "words")
    box = Sandbox(1)
    box.read_one(task(path))
    assert len(children()) == 1
    del box
    gc.collect()
    assert children() == []


def test_a_closed_sandbox_reads_no_more(tmp_path: Path) -> None:
    box = Sandbox(1, warm=True)
    assert len(children()) == 1
    box.close()
    box.close()
    assert children() == []
    with pytest.raises(ValueError, match="closed"):
        box.read_one(task(tmp_path / "a.pdf"))


def test_closing_it_during_a_reading_accuses_no_file(tmp_path: Path) -> None:
    with Sandbox(1) as box:
        reading = box.read([task(pdf(tmp_path / "a.pdf", *["words"] * 30))])
        next(reading)
        box.close()
        with pytest.raises(ValueError, match="closed while it was reading"):
            list(reading)


def test_threads_may_read_at_the_same_time(box: Sandbox, tmp_path: Path) -> None:
    paths = [pdf(tmp_path / f"{i}.pdf", *["words"] * 30) for i in range(4)]
    found: dict[int, int] = {}

    def one(number: int) -> None:
        found[number] = len(box.read_one(task(paths[number])))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == dict.fromkeys(range(4), 30)


SCRIPT = """
    import sys, time
    from pathlib import Path
    from mmsearch.indexers.sandbox import ReadTask, Sandbox
    from mmsearch.values import ReadPolicy

    print("ran", flush=True)
    box = Sandbox(1)
    reading = box.read([ReadTask(Path(sys.argv[1]), None, ReadPolicy(ocr=False))])
    print(next(reading)[1].text, flush=True)
    {ending}
"""


def script(tmp_path: Path, ending: str) -> list[str]:
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT).format(ending=ending))
    (tmp_path / "numpy.py").write_text("raise RuntimeError('a file of the user was imported')")
    path = pdf(tmp_path / "a.pdf", *["words"] * 30)
    return [sys.executable, "-P", str(tmp_path / "script.py"), str(path)]


def test_a_plain_script_is_not_run_twice_and_its_files_not_imported(tmp_path: Path) -> None:
    done = subprocess.run(
        script(tmp_path, ""), cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "ran\nwords\n"
    assert done.stderr == ""


def test_workers_go_when_their_parent_is_killed(tmp_path: Path) -> None:
    command = script(tmp_path, "time.sleep(60)")
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert [parent.stdout.readline() for _ in range(2)] == ["ran\n", "words\n"]
        (worker,) = psutil.Process(parent.pid).children()
        parent.kill()
    gone, alive = psutil.wait_procs([worker], timeout=20)
    assert not alive
    assert len(gone) == 1


def test_a_worker_that_hangs_when_its_parent_is_killed_goes_too(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from mmsearch.indexers.sandbox import ReadTask, Sandbox\n"
        "from mmsearch.values import Kind, ReadPolicy\n"
        "policy = ReadPolicy(ocr=False, step_timeout_s=3.0)\n"
        "Sandbox(1).read_one(ReadTask(Path(sys.argv[1]), Kind.PDF, policy))"
    )
    bomb = pdf_bomb(tmp_path / "bomb.pdf")
    with subprocess.Popen([sys.executable, "-c", code, str(bomb)]) as parent:
        workers: list[psutil.Process] = []
        while not workers or sum(workers[0].cpu_times()[:2]) < 0.5:  # it is at the bomb
            workers = psutil.Process(parent.pid).children()
            time.sleep(0.05)
        parent.kill()
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert not alive


def test_an_interrupt_at_the_terminal_is_the_parents_alone(box: Sandbox, tmp_path: Path) -> None:
    path = pdf(tmp_path / "a.pdf", *["words"] * 30)
    reading = box.read([task(path)])
    next(reading)
    (worker,) = children()
    worker.send_signal(signal.SIGINT)
    assert [outcome for _, outcome in reading][-1] is None


def test_a_sandbox_needs_a_worker() -> None:
    with pytest.raises(ValueError, match="needs a worker"):
        Sandbox(0)
