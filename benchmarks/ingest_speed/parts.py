"""The measurements, each from nothing to a JSON object.

pipeline    the whole pipeline against the readers alone, in turns
unchanged   a second run over files that did not change
soak        many small pictures: memory, open files and processes over time
default     the default model, reading and embedding
searchable  pictures with words in them: when they are found, and when by their words
"""

import os
import resource
import shutil
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from ingest_speed.made import CORPUS, TimedEmbedder, notes, pages, pictures, specks
from mmsearch import Engine
from mmsearch.indexers.readers import sniff
from mmsearch.indexers.report import Progress
from mmsearch.indexers.sandbox import ReadTask, Sandbox
from mmsearch.retriever.embedding.cores import num_cores
from mmsearch.retriever.store.store import Row, Writer
from mmsearch.upkeep import check
from mmsearch.values import Document, Kind, ReadPolicy, Segment

_ITEM_S = 0.001
_WARM_UP = 0.4  # of a soak: by then every cache has its size
_MIB = 2**20


def cpu_s() -> float:
    """Return processor seconds of this process and of children that have ended."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in spent)


# ---------------------------------------------------------------- pipeline


def pipeline(scratch: Path, *, num: int, rounds: int) -> dict[str, Any]:
    """Return rates of pictures and pages, and their ratio to the readers alone."""
    found: dict[str, Any] = {"item_s": _ITEM_S, "workers": num_cores(), "rounds": rounds}
    for name, make in (("pictures", pictures), ("pages", pages)):
        folder = make(scratch / name, num)
        alone, whole = [], []
        for number in range(rounds):
            alone.append(_readers_alone(folder))
            whole.append(_whole_pipeline(folder, scratch / f"{name}-{number}.db"))
        shutil.rmtree(folder)
        found[name] = {
            "segments": whole[0]["segments"],
            "readers_per_s": _median(one["segments"] / one["wall_s"] for one in alone),
            "pipeline_per_s": _median(one["segments"] / one["wall_s"] for one in whole),
            "ratio": _median(
                mine["wall_s"] / its["wall_s"] for mine, its in zip(alone, whole, strict=True)
            ),
            "cpu_ratio": _median(
                mine["cpu_s"] / its["cpu_s"] for mine, its in zip(alone, whole, strict=True)
            ),
            "readers": alone,
            "pipeline": whole,
        }
    return found


def _readers_alone(folder: Path) -> dict[str, float]:
    paths = sorted(folder.iterdir())
    wall, cpu = time.perf_counter(), cpu_s()
    policy = ReadPolicy(ocr=False)
    with Sandbox(num_cores()) as sandbox:
        tasks = (ReadTask(path, sniff(path), policy) for path in paths)
        segments = sum(isinstance(outcome, Segment) for _, outcome in sandbox.read(tasks))
    return {
        "segments": segments,
        "wall_s": time.perf_counter() - wall,
        "cpu_s": cpu_s() - cpu,
    }


def _whole_pipeline(folder: Path, db: Path) -> dict[str, float]:
    with Engine.open(db, create=True, model=TimedEmbedder(item_s=_ITEM_S)) as engine:
        wall, cpu = time.perf_counter(), cpu_s()
        report = engine.index([folder], ocr=False)
        taken = {"wall_s": time.perf_counter() - wall, "cpu_s": cpu_s() - cpu}
    shutil.rmtree(db)
    return {"segments": report.segments, **taken, **_stages(report.seconds)}


# ---------------------------------------------------------------- unchanged


def unchanged(scratch: Path, *, num: int, rounds: int) -> dict[str, Any]:
    """Return the seconds of a first run over notes, and of further runs over the same."""
    folder = notes(scratch / "notes", num)
    db = scratch / "notes.db"
    embedder = TimedEmbedder(item_s=0.0, dim=64)
    with Engine.open(db, create=True, model=embedder) as engine:
        began = time.perf_counter()
        report = engine.index([folder], ocr=False)
        first_s = time.perf_counter() - began
        assert report.documents == num, report
    again = []
    with _opened_below(folder) as opened:
        for _ in range(rounds):
            wall, cpu = time.perf_counter(), cpu_s()
            with Engine.open(db, model=embedder) as engine:
                report = engine.index([folder], ocr=False)
            again.append({"wall_s": time.perf_counter() - wall, "cpu_s": cpu_s() - cpu})
            again[-1] |= _stages(report.seconds)
            assert report.skipped == num, report
    shutil.rmtree(folder)
    shutil.rmtree(db)
    return {
        "files": num,
        "first_s": first_s,
        "again_s": _median(one["wall_s"] for one in again),
        "again_cpu_s": _median(one["cpu_s"] for one in again),
        "files_opened": len(opened),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "runs": again,
    }


@contextmanager
def _opened_below(folder: Path) -> Iterator[list[str]]:
    """Collect the files below a folder that this process opens."""
    opened: list[str] = []
    is_watching = True

    def hear(event: str, arguments: tuple[object, ...]) -> None:
        if is_watching and event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            path = os.fsdecode(arguments[0])
            if path.startswith(f"{folder}/"):
                opened.append(path)

    sys.addaudithook(hear)  # it can never be taken off again
    yield opened
    is_watching = False


# ---------------------------------------------------------------- soak


def soak(scratch: Path, *, num: int, every_s: float) -> dict[str, Any]:
    """Return what indexing many pictures does to this process, and what it leaves behind."""
    began = time.perf_counter()
    folder = specks(scratch / "specks", num)
    made_s = time.perf_counter() - began
    db = scratch / "specks.db"
    me = psutil.Process()
    done = [0]

    def listen(progress: Progress) -> None:
        done[0] = progress.documents

    with Engine.open(db, create=True, model=TimedEmbedder(item_s=0.0, dim=64)) as engine:
        before = _held(me)
        began, cpu = time.perf_counter(), cpu_s()
        with _Sampled(me, every_s, lambda: done[0]) as samples:
            report = engine.index([folder], on_progress=listen, ocr=False)
        wall_s, cpu = time.perf_counter() - began, cpu_s() - cpu
        problems = [problem.sentence for problem in check(engine.path)]
    after = _held(me)
    num_bytes = sum(path.stat().st_size for path in db.rglob("*") if path.is_file())
    shutil.rmtree(folder)
    shutil.rmtree(db)
    run = [one for one in samples if one["documents"] < num]  # what follows is the refresh
    warm = [one for one in run if one["documents"] >= _WARM_UP * num]
    slopes = {name: slope(warm, name) for name in ("rss_mib", "files", "children", "children_mib")}
    return {
        "pictures": num,
        "made_s": made_s,
        "documents": report.documents,
        "failed": len(report.failed),
        "wall_s": wall_s,
        "cpu_s": cpu,
        "per_s": report.documents / wall_s,
        "stages_s": _stages(report.seconds),
        "index_mib": num_bytes / _MIB,
        "problems": problems,
        "warm_samples": len(warm),
        "slope_per_10k": {name: 10_000 * value for name, value in slopes.items()},
        "rss_mib_at_warm_up": warm[0]["rss_mib"] if warm else None,
        "rss_mib_at_end": warm[-1]["rss_mib"] if warm else None,
        "peak_mib": max((one["rss_mib"] for one in samples), default=None),
        "before": before,
        "after": after,
        "samples": samples,
    }


def slope(samples: Sequence[dict[str, float]], name: str) -> float:
    """Return by how much it grows a document, by least squares; 0 for fewer than two samples."""
    if len(samples) < 2:
        return 0.0
    x = np.array([one["documents"] for one in samples], dtype=np.float64)
    y = np.array([one[name] for one in samples], dtype=np.float64)
    spread = float(((x - x.mean()) ** 2).sum())
    return float(((x - x.mean()) * (y - y.mean())).sum() / spread) if spread else 0.0


def _held(process: psutil.Process) -> dict[str, int]:
    return {
        "files": process.num_fds(),
        "children": len(process.children(recursive=True)),
        "threads": threading.active_count(),
    }


class _Sampled:
    """Looks at a process every so often, in a thread of its own."""

    def __init__(
        self, process: psutil.Process, every_s: float, documents: Callable[[], int]
    ) -> None:
        self._process, self._every_s, self._documents = process, every_s, documents
        self._samples: list[dict[str, float]] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._sample)

    def __enter__(self) -> list[dict[str, float]]:
        self._thread.start()
        return self._samples

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _sample(self) -> None:
        began = time.perf_counter()
        while not self._stopped.wait(self._every_s):
            children = self._process.children(recursive=True)
            self._samples.append(
                {
                    "s": round(time.perf_counter() - began, 2),
                    "documents": self._documents(),
                    "rss_mib": self._process.memory_info().rss / _MIB,
                    "files": self._process.num_fds(),
                    "children": len(children),
                    "children_mib": sum(_rss(child) for child in children) / _MIB,
                }
            )


def _rss(process: psutil.Process) -> float:
    try:
        return float(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0.0


# ---------------------------------------------------------------- default


def default(scratch: Path, *, num: int, rounds: int) -> dict[str, Any]:
    """Return pages and pictures a second with the default model, OCR off."""
    found: dict[str, Any] = {"workers": num_cores(), "rounds": rounds}
    for name, make in (("pictures", pictures), ("pages", pages)):
        folder = make(scratch / name, num)
        runs = []
        for number in range(rounds):
            with Engine.open(scratch / f"{name}-{number}.db", create=True) as engine:
                engine.load()
                wall, cpu = time.perf_counter(), cpu_s()
                report = engine.index([folder], ocr=False)
                taken = {"wall_s": time.perf_counter() - wall, "cpu_s": cpu_s() - cpu}
            runs.append({"segments": report.segments, **taken, **_stages(report.seconds)})
            rates = {str(kind): asdict(rate) for kind, rate in report.rates.items()}
        shutil.rmtree(folder)
        found[name] = {
            "segments": runs[0]["segments"],
            "per_s": _median(one["segments"] / one["wall_s"] for one in runs),
            "cpu_s_each": _median(one["cpu_s"] / one["segments"] for one in runs),
            "rates": rates,  # of the last run, what `mmsearch index --dry-run` goes by
            "runs": runs,
        }
    return found


# ---------------------------------------------------------------- searchable


def searchable(scratch: Path, *, num: int) -> dict[str, Any]:
    """Return when the pictures of the sample corpus can be found, with OCR on."""
    folder = scratch / "images"
    originals = sorted(path for path in (CORPUS / "images").rglob("*") if path.is_file())
    folder.mkdir()
    for path in originals[:num]:
        shutil.copy(path, folder)
    committed: list[tuple[float, int]] = []
    commit_all = Writer.commit_all

    def timed(self: Writer, batch: Sequence[tuple[Document, Sequence[Row]]]) -> None:
        commit_all(self, batch)
        images = sum(document.kind is Kind.IMAGE for document, _ in batch)
        committed.append((time.perf_counter() - began, images))

    Writer.commit_all = timed  # type: ignore[method-assign]
    try:
        with Engine.open(scratch / "images.db", create=True) as engine:
            engine.load()
            began, cpu = time.perf_counter(), cpu_s()
            report = engine.index([folder])
            total_s, cpu = time.perf_counter() - began, cpu_s() - cpu
    finally:
        Writer.commit_all = commit_all  # type: ignore[method-assign]
    so_far = np.cumsum([images for _, images in committed]).tolist()
    wanted = len(originals[:num])
    return {
        "pictures": wanted,
        "first_s": committed[0][0],
        "all_by_look_s": next(
            at for (at, _), count in zip(committed, so_far, strict=True) if count >= wanted
        ),
        "all_by_words_s": total_s,
        "cpu_s": cpu,
        "stages_s": _stages(report.seconds),
    }


def _stages(seconds: Mapping[str, float]) -> dict[str, float]:
    return {f"{stage}_s": round(spent, 3) for stage, spent in seconds.items()}


def _median(values: Iterable[float]) -> float:
    return float(statistics.median(values))
