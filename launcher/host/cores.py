"""The processors that this process may use: what an affinity mask and a CPU quota leave of those of the host."""

import math
import os
from pathlib import Path

import psutil

from launcher.host.cgroups import PROC, cpu_quota

TOPOLOGY = Path("/sys/devices/system/cpu")


def usable_cores(proc: Path = PROC) -> int:
    """Logical cores that may be busy at once, one at least; a part of a core is none."""
    return max(1, min(len(_mask()), _whole(cpu_quota(proc))))


def physical_cores(proc: Path = PROC, topology: Path = TOPOLOGY) -> int:
    """As `usable_cores`, where the sibling threads of a core count as one."""
    return max(1, min(_physical(_mask(), topology), _whole(cpu_quota(proc))))


def engine_threads(proc: Path = PROC, topology: Path = TOPOLOGY) -> int | None:
    """The threads for an engine that may not use all cores; None: it may, and its own choice is right.

    llama-server counts the host's physical cores whatever we may use of them, and threads without a core wait for each
    other at every step: with one core of 64 left it is tens of times slower.
    """
    all_cores = set(range(os.cpu_count() or 1))
    bounded = len(_mask()) < len(all_cores) or _whole(cpu_quota(proc)) < _physical(all_cores, topology)
    return physical_cores(proc, topology) if bounded else None


def _mask() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(psutil.cpu_count() or 1))


def _whole(quota: float | None) -> int:
    return os.cpu_count() or 1 if quota is None else math.floor(quota)


def _physical(cores: set[int], topology: Path) -> int:
    """How many of these are cores of their own; all, where the system does not say."""
    if not topology.is_dir():
        return min(len(cores), psutil.cpu_count(logical=False) or len(cores))
    siblings = set()
    for core in cores:
        try:
            siblings.add((topology / f"cpu{core}/topology/thread_siblings").read_text(encoding="ascii"))
        except OSError:
            siblings.add(f"cpu{core}")
    return len(siblings)
