"""The CPU cores that this process may use, given its affinity mask and CPU quota."""

import math
import os
from pathlib import Path

import psutil

from launcher.host.cgroups import PROC, cpu_quota

TOPOLOGY = Path("/sys/devices/system/cpu")


def usable_cores(proc: Path = PROC) -> int:
    """Logical cores that may be busy at once, at least one; a fraction of a core does not count."""
    return max(1, min(len(_mask()), _whole_cores(cpu_quota(proc))))


def physical_cores(proc: Path = PROC, topology: Path = TOPOLOGY) -> int:
    """As `usable_cores`, but the sibling threads of a core count as one."""
    return max(1, min(_physical(_mask(), topology), _whole_cores(cpu_quota(proc))))


def engine_threads(proc: Path = PROC, topology: Path = TOPOLOGY) -> int | None:
    """The thread count for an engine that may not use all cores; None if it may: then its own default is right.

    llama-server counts the host's physical cores, however few of them we may use, and threads without a core wait for
    each other at every step: with one core of 64 it is tens of times slower.
    """
    all_cores = set(range(os.cpu_count() or 1))
    limited = len(_mask()) < len(all_cores) or _whole_cores(cpu_quota(proc)) < _physical(all_cores, topology)
    return physical_cores(proc, topology) if limited else None


def _mask() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(psutil.cpu_count() or 1))


def _whole_cores(quota: float | None) -> int:
    return os.cpu_count() or 1 if quota is None else math.floor(quota)


def _physical(cores: set[int], topology: Path) -> int:
    """How many physical cores these are; all of them if the system does not say."""
    if not topology.is_dir():
        return min(len(cores), psutil.cpu_count(logical=False) or len(cores))
    siblings = set()
    for core in cores:
        try:
            siblings.add((topology / f"cpu{core}/topology/thread_siblings").read_text(encoding="ascii"))
        except OSError:
            siblings.add(f"cpu{core}")
    return len(siblings)
