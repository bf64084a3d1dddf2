"""The checks of what the host allows us: processors, memory, folders."""

import os
import shlex
from pathlib import Path

from launcher.doctor.finding import Finding, fail, ok, warn
from launcher.engine.devices import host_memory
from launcher.errors import ConfigError
from launcher.host.cgroups import PROC, cpu_quota, memory_limits
from launcher.host.cores import engine_threads, physical_cores, usable_cores
from launcher.host.disk import amount, free_bytes
from launcher.host.wsl import Wsl, wsl
from launcher.planning.memory import GIB
from launcher.settings.folders import CACHE, HUB, PLACES, noexec, write_obstacle

WSL_MEMORY = r"; Windows gives no more: memory= under [wsl2] in %UserProfile%\.wslconfig, then wsl --shutdown"
LEAST_FREE = 100 * 2**20  # bytes: six log files of 4 MiB of each model
LITTLE = 2 * GIB  # a model of three billion weights takes more, at any quantisation


def processors(proc: Path = PROC) -> Finding:
    """The cores that we may use, and how many the engine uses of them."""
    quota, threads = cpu_quota(proc), engine_threads(proc)
    limit = f", a CPU quota of {quota:.3g}" if quota is not None else ""
    used = f": the engine computes with {threads}" if threads else ""
    text = f"{usable_cores(proc)} of {os.cpu_count()} logical cores, {physical_cores(proc)} physical{limit}{used}"
    if quota is not None and quota < 1:
        return warn(f"{text}, so the engine pauses part of the time", "give the container at least one whole CPU")
    return ok(text)


def memory(proc: Path = PROC) -> Finding:
    """The RAM that we may use."""
    ram, limits = host_memory(proc), memory_limits(proc)
    limit = ", by the limit of a control group" if limits and min(limits)[0] <= ram.total_bytes else ""
    text = f"{ram.free_bytes / GIB:.1f} of {ram.total_bytes / GIB:.1f} GiB free{limit}"
    if ram.total_bytes < LITTLE:
        return warn(f"{text}: too little for a model", "give it more memory, or use --demo")
    return ok(text + WSL_MEMORY * (wsl() is Wsl.TWO))


def folders() -> Finding:
    """Whether our folders can be written, and whether programs that we build there may run."""
    try:
        places = {place.path(): place for place in reversed(PLACES)}
        reasons = {place: reason for path, place in reversed(places.items()) if (reason := write_obstacle(path))}
        cache, hub = CACHE.path(), HUB.path()
    except ConfigError as error:
        return fail(str(error), "export HOME=/a/folder  # or TRILLAMA_CACHE and HF_HOME")
    if reasons:
        text = "; ".join(f"{place.what} in {place.path()}: {reason}" for place, reason in reasons.items())
        moved_by = " and ".join(place.moved_by for place in reasons)
        return fail(text, f"set HOME, or {moved_by}, to a writable folder")
    if noexec(cache):
        text = f"{cache} is on a disk where no program may run (noexec): an engine built there is of no use"
        return warn(text, "set TRILLAMA_CACHE to a folder on another disk")
    if wsl() and hub.parts[:2] == ("/", "mnt"):
        return warn(f"{hub} is on a disk of Windows: models load slowly", "set HF_HOME to a folder of Linux's own")
    paths = dict.fromkeys(place.path() for place in PLACES)
    free = {path: free_bytes(path.absolute()) for path in paths}
    text = ", ".join(f"{path} ({amount(left)} free)" for path, left in free.items())
    if least := [path for path, left in free.items() if left < LEAST_FREE]:
        return warn(text, f"make room: {shlex.join(('df', '-h', str(least[0])))}")
    return ok(text)
