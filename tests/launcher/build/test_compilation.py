"""What is compiled is checked, and compiled again without AMX where that may be to blame."""

import os
from pathlib import Path

import pytest

from launcher.build.compilation import Compilation, Compiled, compile_engine
from launcher.build.steps import Progress, Steps
from launcher.engine.build_record import ComputeBackend, Order
from launcher.errors import EngineBuildError
from tests.support.sources.toolchain import DIES, faulty_cmake, quick_check

FAULTS = [
    (DIES.format("--version"), "the built engine dies of SIGILL on --version"),
    (DIES.format("--verbosity"), "the built engine dies of SIGILL on --list-devices"),
    (DIES.format("--model"), "the built engine dies of SIGILL on Q8_0"),
    (DIES.format("--model").replace("ILL", "SEGV"), "the built engine dies of SIGSEGV on Q8_0"),
    (
        'case "$*" in *in-F32*) ;; *--model*) set -- "$@" --pooling last ;; esac',
        "the built engine computes wrong vectors on Q8_0: a cosine of ",
    ),
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", os.pathsep.join((str(tmp_path / "bin"), "/usr/bin", "/bin")))
    quick_check(monkeypatch, "Q8_0")
    return tmp_path


async def compiled_for(
    folder: Path, *instructions: str, backend: ComputeBackend = ComputeBackend.CPU, cxxflags: str = ""
) -> tuple[Compiled, list[str]]:
    """What is compiled on a processor with those instructions, and the steps."""
    seen: list[Progress] = []
    order = Order(source="s", backend=backend, stock=False, instructions=instructions)
    env = {**os.environ, "CXXFLAGS": cxxflags}
    task = Compilation(source=folder, folder=folder, order=order)
    made = await compile_engine(task, Steps(env=env, log=folder / "log", report=seen.append))
    return made, list(dict.fromkeys(progress.step for progress in seen))


@pytest.mark.parametrize(("fault", "said"), FAULTS, ids=("asked", "lists", "served", "segv", "wrong"))
async def test_what_is_miscompiled_is_compiled_again_without_amx(folder: Path, fault: str, said: str) -> None:
    faulty_cmake(folder, fault, unless="-O2 -mno-amx-tile -mno-amx-int8 -mno-amx-bf16")  # and the user's own stay
    made, steps = await compiled_for(folder, "amx_fp16", "amx_tile", "avx512f", cxxflags="-O2")
    assert made.left_out == ("amx_fp16", "amx_tile")
    assert made.fault.startswith(said)
    assert made.binary.parent.parent.name == "build-without-amx"
    again = ["configuring without AMX", "compiling without AMX"]
    assert [step for step in steps if "AMX" in step] == again


async def test_where_it_dies_without_amx_too_both_are_reported(folder: Path) -> None:
    faulty_cmake(folder, DIES.format("--model"), unless="-mno-other")
    dies = "the built engine dies of SIGILL on Q8_0"
    with pytest.raises(EngineBuildError, match=f"^{dies}; compiled again without AMX: {dies}$"):
        await compiled_for(folder, "amx_tile")


@pytest.mark.parametrize(
    ("instruction", "backend"), [("avx512f", ComputeBackend.CPU), ("amx_tile", ComputeBackend.VULKAN)]
)
async def test_where_amx_is_not_to_blame_nothing_is_compiled_again(
    folder: Path, instruction: str, backend: ComputeBackend
) -> None:
    faulty_cmake(folder, DIES.format("--version"), unless="-mno-amx-tile")
    with pytest.raises(EngineBuildError, match=r"dies of SIGILL on --version$"):
        await compiled_for(folder, instruction, backend=backend)


async def test_an_engine_on_a_software_device_is_checked_as_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GGML_VK_VISIBLE_DEVICES", "0")  # llama.cpp uses a software device only if it is named
    listed = "  Vulkan0: llvmpipe (LLVM 15.0.6, 256 bits) (2048 MiB, 2048 MiB free)"
    faulty_cmake(folder, f'case "$*" in *--list-devices*) echo "{listed}"; exit ;; esac', unless="-O2")
    made, _ = await compiled_for(folder, backend=ComputeBackend.VULKAN)
    assert made.devices.software
    models = {path.name for path in (folder / "build" / "check").iterdir()}
    assert models == {"Q8_0.gguf", "Q8_0-in-F32.gguf"}
