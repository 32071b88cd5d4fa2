"""Making the indexes: seconds, processor seconds, peak memory and bytes of each."""

import resource
import time
from collections.abc import Callable
from pathlib import Path

from index_speed.world import World
from mmsearch.retriever.search import backends
from mmsearch.retriever.store import ann
from mmsearch.retriever.store.tables import open_tables


def build_lance(world: World) -> dict[str, float]:
    """What a run of `mmsearch index` does at its end, the vector index by itself."""
    _, segments = open_tables(world.store.home, world.case.dim)
    before = _bytes(world.store.home)
    vector_index = measured(lambda: ann.refresh(segments))
    grown = _bytes(world.store.home) - before
    with world.store.writing() as writer:
        all_else = measured(writer.refresh)
    return {
        **vector_index,
        "bytes": grown,
        "other_indexes_wall_s": all_else["wall_s"],
        "other_indexes_cpu_s": all_else["cpu_s"],
        "table_bytes": before,
    }


def build_faiss(world: World) -> dict[str, float]:
    """What `mmsearch optimize --faiss` does."""
    found = measured(lambda: backends.build(world.store.snapshot(), world.store.home))
    return {**found, "bytes": _bytes(world.store.home / "faiss")}


def measured(work: Callable[[], object]) -> dict[str, float]:
    """Return what a piece of work took; the peak is that of the process so far."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return {
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
        "peak_mb": peak_mb(),
    }


def peak_mb() -> float:
    """Return the most memory that this process has had, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_000


def rss_mb() -> float:
    """Return the memory that this process has now, MB; files that it has mapped count."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1_000


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
