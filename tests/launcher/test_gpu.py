"""What an engine says of its devices, read; and what a control group leaves of the RAM."""

import os
import sys
from pathlib import Path

import psutil
import pytest

from launcher.command import REQUIRED_FLAGS
from launcher.config import cache_dir
from launcher.engine import Engine, Origin
from launcher.errors import EngineError
from launcher.gpu import Device, devices_in, host_memory, read
from launcher.openmp import openmp_environment
from tests.engine import EngineMissing, native_binary
from tests.launcher.programs import program

MIB = 2**20
LISTS = REQUIRED_FLAGS | {"--list-devices"}
TWO = """\
ggml_cuda_init: found 2 CUDA devices:
  Device 0: NVIDIA GeForce RTX 4090, compute capability 8.9, VMM: yes
Available devices:
  CUDA0: NVIDIA GeForce RTX 4090 (24080 MiB, 23000 MiB free)
  CUDA1: NVIDIA RTX A2000 (12GB) (11900 MiB, 11000 MiB free)
  Vulkan0: NVIDIA GeForce RTX 4090 (24564 MiB, 23100 MiB free)
  BLAS: OpenBLAS (0 MiB, 0 MiB free)
"""


def engine(path: Path, *, flags: frozenset[str] = LISTS) -> Engine:
    return Engine(argv=(str(path),), version="1", flags=flags, origin=Origin.CONFIGURED, env={})


def test_each_card_is_counted_once_and_an_accelerator_without_memory_is_none() -> None:
    assert devices_in(TWO) == (
        Device(name="CUDA0", description="NVIDIA GeForce RTX 4090", total_bytes=24080 * MIB, free_bytes=23000 * MIB),
        Device(name="CUDA1", description="NVIDIA RTX A2000 (12GB)", total_bytes=11900 * MIB, free_bytes=11000 * MIB),
    )
    assert devices_in("Available devices:\n  (none)\n") == ()


@pytest.mark.parametrize("kind", ["embedded", "native"])
async def test_both_engines_of_a_machine_without_a_gpu_say_so(kind: str) -> None:
    try:
        argv = (sys.executable, "-P", "-m", "launcher.embedded") if kind == "embedded" else (str(native_binary()),)
    except EngineMissing as missing:
        pytest.skip(str(missing))
    env = openmp_environment(os.environ, cache_dir() / "lib")
    found = await read(Engine(argv=argv, version="", flags=LISTS, origin=Origin.CONFIGURED, env=env))
    assert (found.gpus, found.has_gpu_backend) == ((), False)
    assert found.ram.total_bytes <= psutil.virtual_memory().total


@pytest.mark.parametrize(
    ("said", "built_in"),
    [
        ("ggml_cuda_init: failed to initialize CUDA: no CUDA-capable device is detected", True),
        ("ggml_vulkan: No devices found.", True),
        ("load_backend: loaded CUDA backend from /x/libggml-cuda.so", True),
        ("load_backend: loaded CPU backend from /x/libggml-cpu-haswell.so", False),
        ("", False),
    ],
)
async def test_a_gpu_backend_without_a_gpu_is_told_from_none(tmp_path: Path, said: str, built_in: bool) -> None:
    path = program(tmp_path / "engine", f"echo '{said}' >&2; echo 'Available devices:'; echo '  (none)'")
    found = await read(engine(path))
    assert (found.gpus, found.has_gpu_backend) == ((), built_in)


async def test_a_backend_beside_the_program_counts_even_if_it_does_not_load(tmp_path: Path) -> None:
    path = program(tmp_path / "engine", "echo 'Available devices:'")
    (tmp_path / "libggml-cpu.so").touch()
    assert not (await read(engine(path))).has_gpu_backend
    (tmp_path / "libggml-cuda.so").touch()
    assert (await read(engine(path))).has_gpu_backend
    assert (await read(engine(path, flags=REQUIRED_FLAGS))).has_gpu_backend  # too old to be asked


async def test_an_engine_that_fails_to_list_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="--list-devices ended with 3"):
        await read(engine(program(tmp_path / "engine", "exit 3")))


def test_a_control_group_limits_the_ram(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("0::/system.slice/trillama.service\n")
    for name, limit, current, cache in (("", "max", 0, 0), ("system.slice", str(1000 * MIB), 300 * MIB, 100 * MIB)):
        folder = tmp_path / "cgroup" / name
        folder.mkdir(parents=True)
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{current}\n")
        (folder / "memory.stat").write_text(f"anon 5\ninactive_file {cache}\n")
    memory = host_memory(tmp_path / "cgroup", tmp_path / "own")
    assert (memory.total_bytes, memory.free_bytes) == (1000 * MIB, 800 * MIB)
    assert host_memory(tmp_path / "nothing", tmp_path / "own").total_bytes == psutil.virtual_memory().total
