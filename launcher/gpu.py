"""The devices an engine can compute on and the memory there is: read once, before anything is planned."""

import asyncio
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from launcher.engine import Engine, ask

MIB = 2**20
POLL_S = 0.5
# What a GPU backend of ggml writes on stderr: that it finds devices, that it fails to, that it was loaded from a file.
BACKEND_SIGNS = re.compile(r"ggml_(cuda|hip|vulkan|vk|sycl|metal|musa|cann|opencl)|loaded (?!CPU|BLAS|RPC)\w+ backend")
BACKEND_FILES = re.compile(r"libggml-(cuda|hip|vulkan|sycl|metal|musa|cann|opencl)\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One GPU by llama.cpp's name (CUDA0), or the host's RAM."""

    name: str
    description: str
    total_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Devices:
    """What there is. `has_gpu_backend` without `gpus`: a driver is missing or not up, and the CPU would compute."""

    gpus: tuple[Device, ...]
    ram: Device
    has_gpu_backend: bool


async def read(engine: Engine) -> Devices:
    """The devices as the engine itself lists them, in its own environment. Raises EngineError if it fails to."""
    if "--list-devices" not in engine.flags:
        return Devices(gpus=(), ram=host_memory(), has_gpu_backend=_has_backend_file(engine))
    text = await ask(engine.argv, "--list-devices", engine.env, engine.name)
    gpus = devices_in(text)
    built_in = bool(gpus) or BACKEND_SIGNS.search(text) is not None
    return Devices(gpus=gpus, ram=host_memory(), has_gpu_backend=built_in or _has_backend_file(engine))


def without_gpus() -> Devices:
    """The devices where no GPU is to be used; the engine is not asked."""
    return Devices(gpus=(), ram=host_memory(), has_gpu_backend=False)


async def until_free(engine: Engine, needed: Mapping[str, int], patience_s: float) -> None:
    """Wait until the GPUs have that much free: what a process held that was killed comes back a moment later.

    Returns after `patience_s` in any case: a start that fails says more. Raises EngineError if the engine does not run.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(patience_s):
            while True:
                free = {one.name: one.free_bytes for one in (await read(engine)).gpus}
                if all(free.get(name, 0) >= bytes_ for name, bytes_ in needed.items()):
                    return
                await asyncio.sleep(POLL_S)


def devices_in(text: str) -> tuple[Device, ...]:
    """The GPUs in what `--list-devices` printed; one that two backends (CUDA, Vulkan) name is counted once.

    Format: `  NAME: DESCRIPTION (TOTAL MiB, FREE MiB free)`, from common_print_available_devices of llama.cpp.
    """
    rows = re.findall(r"^ +([A-Za-z]+)(\d*): (.*) \((\d+) MiB, (\d+) MiB free\)\s*$", text, re.MULTILINE)
    kinds: dict[str, str] = {}  # by description: the backend that named it first, which llama.cpp prefers too
    found = []
    for kind, number, description, total, free in rows:
        if int(total) and kinds.setdefault(description, kind) == kind:  # an accelerator like BLAS has no memory
            found.append(
                Device(
                    name=kind + number,
                    description=description,
                    total_bytes=int(total) * MIB,
                    free_bytes=int(free) * MIB,
                )
            )
    return tuple(found)


def host_memory(cgroups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> Device:
    """The host's RAM: in all, and what can be had without swapping; less where a cgroup (version 2) allows less."""
    memory = psutil.virtual_memory()
    total, free = memory.total, memory.available
    for limit, used in _cgroup_limits(cgroups, own):
        total, free = min(total, limit), min(free, max(0, limit - used))
    return Device(name="RAM", description="host memory", total_bytes=total, free_bytes=free)


def _cgroup_limits(cgroups: Path, own: Path) -> list[tuple[int, int]]:
    """(limit, what is used of it and cannot be dropped), in bytes, of our control group and those above it."""
    try:
        (path,) = [line[4:].strip() for line in own.read_text().splitlines() if line.startswith("0::/")]
    except (OSError, ValueError):
        return []
    group = cgroups / path.lstrip("/")
    folders = [one for one in (group, *group.parents) if one.is_relative_to(cgroups)]
    return [found for one in folders if (found := _limit_of(one))]


def _limit_of(group: Path) -> tuple[int, int] | None:
    try:
        limit = int((group / "memory.max").read_text())  # "max" where there is none
        used = int((group / "memory.current").read_text())
        cache = re.search(r"^inactive_file (\d+)$", (group / "memory.stat").read_text(), re.MULTILINE)
    except (OSError, ValueError):
        return None
    return limit, used - (int(cache[1]) if cache else 0)


def _has_backend_file(engine: Engine) -> bool:
    """Whether a GPU backend lies beside the program, as in llama.cpp's own releases."""
    folder = Path(engine.argv[0]).resolve().parent
    return any(BACKEND_FILES.match(path.name) for path in folder.glob("libggml-*"))
