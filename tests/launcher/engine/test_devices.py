"""What an engine says of its devices, asked."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from launcher.engine import build_record
from launcher.engine.argv import REQUIRED_FLAGS
from launcher.engine.build_record import ComputeBackend, Order, Record
from launcher.engine.devices import read_devices
from launcher.engine.discovery import Engine, Origin
from launcher.engine.libgomp import openmp_environment
from launcher.errors import EngineError
from launcher.settings.folders import cache_dir
from tests.support.engines.engine import EngineMissing, native_binary
from tests.support.host.programs import program

LISTS = REQUIRED_FLAGS | {"--list-devices"}


def engine(path: Path, *, flags: frozenset[str] = LISTS) -> Engine:
    return Engine(argv=(str(path),), version="1", flags=flags, origin=Origin.CONFIGURED, env={})


@pytest.mark.parametrize("kind", ["embedded", "native"])
async def test_both_engines_of_a_machine_without_a_gpu_say_so(kind: str) -> None:
    try:
        argv = (
            (sys.executable, "-P", "-m", "launcher.engine.embedded") if kind == "embedded" else (str(native_binary()),)
        )
    except EngineMissing as missing:
        pytest.skip(str(missing))
    env = openmp_environment(os.environ, cache_dir() / "lib")
    found = await read_devices(Engine(argv=argv, version="", flags=LISTS, origin=Origin.CONFIGURED, env=env))
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
async def test_a_gpu_backend_without_a_gpu_is_told_apart_from_none(tmp_path: Path, said: str, built_in: bool) -> None:
    path = program(tmp_path / "engine", f"echo '{said}' >&2; echo 'Available devices:'; echo '  (none)'")
    found = await read_devices(engine(path))
    assert (found.gpus, found.has_gpu_backend) == ((), built_in)
    assert found.only_cpu is not built_in


async def test_a_backend_beside_the_program_counts_even_if_it_does_not_load(tmp_path: Path) -> None:
    path = program(tmp_path / "engine", "echo 'Available devices:'")
    (tmp_path / "libggml-cpu.so").touch()
    assert not (await read_devices(engine(path))).has_gpu_backend
    (tmp_path / "libggml-cuda.so").touch()
    assert (await read_devices(engine(path))).has_gpu_backend
    old = await read_devices(engine(path, flags=REQUIRED_FLAGS))  # too old to be asked
    assert (old.has_gpu_backend, old.only_cpu) == (True, False)
    (tmp_path / "libggml-cuda.so").unlink()
    assert not (await read_devices(engine(path, flags=REQUIRED_FLAGS))).only_cpu  # it may have one built in


async def test_what_the_record_says_it_was_built_for_counts_where_the_engine_says_nothing(tmp_path: Path) -> None:
    path = program(tmp_path / "engine", "echo 'Available devices:'")
    for backend in ComputeBackend:
        order = Order(source="s", backend=backend, stock=False, instructions=())
        build_record.write_record(path, Record(order=order, processor="p", note="n"))
        assert (await read_devices(engine(path))).has_gpu_backend is (backend is not ComputeBackend.CPU)


@pytest.mark.parametrize(
    ("text", "built_in"), [("ggml_vulkan: No devices found.", True), ("ggml_cuda_init: failed", True), ("CPU", False)]
)
async def test_a_backend_in_the_program_counts_even_if_it_says_nothing(
    tmp_path: Path, text: str, built_in: bool
) -> None:
    path = program(tmp_path / "engine", f"echo 'Available devices:'; exit; {text}")
    assert (await read_devices(engine(path))).has_gpu_backend is built_in


async def test_it_is_asked_to_say_all(tmp_path: Path) -> None:
    body = """[ "$*" = "--verbosity 5 --list-devices" ] && echo '0.1 D ggml_vulkan: 0 = A (b) | uma: 1 | fp16: 1'"""
    path = program(tmp_path / "engine", f"{body}; echo '  Vulkan0: A (5 MiB, 5 MiB free)'")
    assert [one.integrated for one in (await read_devices(engine(path))).gpus] == [True]


async def test_a_software_device_counts_where_the_user_names_devices(tmp_path: Path) -> None:
    path = program(tmp_path / "engine", "echo 'Available devices:'; echo '  Vulkan0: llvmpipe (5 MiB, 5 MiB free)'")
    assert (await read_devices(engine(path))).gpus == ()
    named = replace(engine(path), env={"GGML_VK_VISIBLE_DEVICES": "0"})
    assert [one.name for one in (await read_devices(named)).gpus] == ["Vulkan0"]


async def test_an_engine_that_fails_to_list_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="--list-devices exited with 3"):
        await read_devices(engine(program(tmp_path / "engine", "exit 3")))
