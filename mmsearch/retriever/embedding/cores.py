"""How many cores this process may use; `os.cpu_count` tells how many there are."""

import math
import os
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")


def num_cores() -> int:
    """Return the cores that affinity and a container's quota leave us, at least one."""
    ours = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()  # not on macOS
    num = len(ours) or os.cpu_count() or 1
    quota = _quota()
    return max(1, min(num, math.ceil(quota)) if quota else num)


def _quota() -> float | None:
    """Return how many cores' worth of time our control group may spend, None for any.

    A container sees its own group as the root of the tree.
    """
    try:
        most, period = (_GROUPS / "cpu.max").read_text().split()  # version 2
    except (OSError, ValueError):
        try:
            most = (_GROUPS / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (_GROUPS / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    try:
        return float(most) / float(period) if float(most) > 0 else None
    except (ValueError, ZeroDivisionError):
        return None  # "max"
