"""The devices that an engine can use, and their memory: read once, before planning."""

import asyncio
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path

import psutil

from launcher.engine import build_record
from launcher.engine.build_record import ComputeBackend
from launcher.engine.device_list import SOFTWARE, Device, parse_devices
from launcher.engine.discovery import Engine, ask
from launcher.host.cgroups import PROC, memory_limits

_POLL_S = 0.5
# What a GPU backend of ggml writes on stderr: that it found devices, or failed to, or was loaded from a file.
BACKEND_SIGNS = re.compile(r"ggml_(cuda|hip|vulkan|vk|sycl|metal|musa|cann|opencl)|loaded (?!CPU|BLAS|RPC)\w+ backend")
# How such a message begins in a program that contains the backend. Vulkan without a driver writes none.
BUILT_IN = re.compile(rb"ggml_(cuda_init|vulkan|sycl_init|metal_init|musa_init|cann_init|opencl): ")
VERBOSE = ("--verbosity", "5")  # else llama.cpp logs neither missing devices nor whether one uses the host's memory
# Set by users to name the devices to use; llama.cpp uses a software device only if it is named.
NAMED_DEVICES = "GGML_VK_VISIBLE_DEVICES"
BACKEND_FILES = re.compile(r"libggml-(cuda|hip|vulkan|sycl|metal|musa|cann|opencl)\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Devices:
    """The GPUs and RAM. `has_gpu_backend` without `gpus`: a driver is missing or not up, and the CPU would compute.

    `unused` are integrated GPUs beside cards. `listed`: the engine was asked, so no GPU means that it uses none.
    """

    gpus: tuple[Device, ...]
    ram: Device
    has_gpu_backend: bool
    unused: tuple[Device, ...] = ()
    listed: bool = False

    @property
    def unified(self) -> bool:
        """Whether GPU and host share one memory."""
        return any(one.integrated for one in self.gpus)

    @property
    def software(self) -> bool:
        """Whether the GPU is a program on the CPU, such as Mesa's llvmpipe."""
        return any(SOFTWARE.search(one.description) for one in self.gpus)

    @property
    def only_cpu(self) -> bool:
        """Whether the engine has no code for a GPU."""
        return self.listed and not self.gpus and not self.has_gpu_backend


async def read_devices(engine: Engine) -> Devices:
    """The devices that the engine lists, in its own environment. Raises EngineError if that fails."""
    if "--list-devices" not in engine.flags:
        return Devices(
            gpus=(), ram=host_memory(), has_gpu_backend=await asyncio.to_thread(_built_for_gpu, Path(engine.argv[0]))
        )
    text = await ask((*engine.argv, *VERBOSE), "--list-devices", engine.env, engine.name)
    found = parse_devices(text, software=NAMED_DEVICES in engine.env)
    built_in = bool(found.used) or BACKEND_SIGNS.search(text) is not None
    return Devices(
        gpus=found.used,
        ram=host_memory(),
        has_gpu_backend=built_in or await asyncio.to_thread(_built_for_gpu, Path(engine.argv[0])),
        unused=found.unused,
        listed=True,
    )


def without_gpus() -> Devices:
    """The devices if no GPU is to be used; the engine is not asked."""
    return Devices(gpus=(), ram=host_memory(), has_gpu_backend=False)


async def wait_until_free(engine: Engine, needed: Mapping[str, int], timeout_s: float) -> None:
    """Wait until the GPUs have that much free: the memory of a killed process is released a moment later.

    Returns after `timeout_s` in any case: a failed start says more. Raises EngineError if the engine does not run.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            while True:
                free = {one.name: one.free_bytes for one in (await read_devices(engine)).gpus}
                if all(free.get(name, 0) >= bytes_ for name, bytes_ in needed.items()):
                    return
                await asyncio.sleep(_POLL_S)


def host_memory(proc: Path = PROC) -> Device:
    """The host's RAM: total, and available without swapping; limited to what control groups allow."""
    total, free = _ram()
    for limit, used in memory_limits(proc):
        total, free = min(total, limit), min(free, max(0, limit - used))
    return Device(name="RAM", description="host memory", total_bytes=total, free_bytes=free)


def _ram() -> tuple[int, int]:
    """Total and available bytes; equal if /proc is unreadable."""
    try:
        memory = psutil.virtual_memory()
    except (OSError, psutil.Error):
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return total, total
    return memory.total, memory.available


def _built_for_gpu(program: Path) -> bool:
    """Whether its record says so, or a GPU backend is linked in, or a file beside it as in llama.cpp's releases."""
    record = build_record.read_record(program)
    if record is not None and record.order.backend is not ComputeBackend.CPU:
        return True
    if any(BACKEND_FILES.match(path.name) for path in program.resolve().parent.glob("libggml-*")):
        return True
    try:
        with program.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
            return BUILT_IN.search(content) is not None
    except (OSError, ValueError):  # it cannot be read, or is empty
        return False
