"""What a build for a GPU lacks is named with its remedy, before anything is downloaded."""

import os
import shutil
from pathlib import Path

import pytest

from launcher.build import backends
from launcher.build.compilation import Compilation
from launcher.engine.build_record import ComputeBackend, Order
from launcher.errors import EngineBuildError
from tests.support.sources.toolchain import script

CXX = shutil.which("c++")


def order(backend: ComputeBackend = ComputeBackend.CPU, architectures: str = "") -> Order:
    return Order(source="s", backend=backend, stock=False, architectures=architectures, instructions=())


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One with a C++ compiler, no GPU, no toolkit, and an empty SDK."""
    for name in ("CC", "CXX", "CPATH", "CPLUS_INCLUDE_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("VULKAN_SDK", str(tmp_path / "sdk"))
    monkeypatch.setattr(backends, "CUDA_BIN", str(tmp_path / "cuda"))
    monkeypatch.setattr(backends, "ROCM_BIN", str(tmp_path / "rocm"))
    monkeypatch.setattr(backends, "DEVICES", tmp_path / "dev")
    script(tmp_path / "bin" / "cc", "")
    script(tmp_path / "bin" / "c++", f'exec {CXX} -nostdinc "$@"')  # the machine's own headers do not count
    return tmp_path


def need(machine: Path, order: Order) -> None:
    backends.require(order, str(machine / "bin"))


def header(machine: Path, name: str, text: str = "") -> None:
    path = machine / "sdk" / "include" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def compiler(machine: Path, name: str) -> None:
    """A GPU's compiler that finds its headers in the SDK."""
    script(machine / "bin" / name, f'exec {CXX} -nostdinc -I{machine}/sdk/include -E -x c++ "$(eval echo \\${{$#}})"')


@pytest.mark.parametrize(("lacking", "said"), [("cc", r"compiler cc: apt-get"), ("c++", r"compiler c\+\+: apt-get")])
def test_a_missing_compiler_is_named_with_its_package(machine: Path, lacking: str, said: str) -> None:
    need(machine, order())
    (machine / "bin" / lacking).unlink()
    with pytest.raises(EngineBuildError, match=f"no {said} install build-essential, or set"):
        need(machine, order())


def test_vulkan_needs_glslc_current_headers_and_spirv(machine: Path) -> None:
    wanted = order(ComputeBackend.VULKAN)
    with pytest.raises(EngineBuildError, match="no glslc, which compiles the shaders: apt-get install glslc"):
        need(machine, wanted)
    script(machine / "sdk" / "bin" / "glslc", "")
    with pytest.raises(EngineBuildError, match="no Vulkan headers: apt-get install libvulkan-dev"):
        need(machine, wanted)
    header(machine, "vulkan/vulkan_core.h", "#define VK_EXT_validation_features 1\n")
    with pytest.raises(EngineBuildError, match="Vulkan headers are too old: set VULKAN_SDK to a folder"):
        need(machine, wanted)
    header(machine, "vulkan/vulkan_core.h", "#define VK_EXT_layer_settings 1\n")
    with pytest.raises(EngineBuildError, match="no SPIR-V headers: apt-get install spirv-headers"):
        need(machine, wanted)
    header(machine, "spirv/unified1/spirv.hpp")
    need(machine, wanted)


def test_cuda_needs_nvcc_its_libraries_and_a_card_or_its_name(machine: Path) -> None:
    wanted = order(ComputeBackend.CUDA)
    with pytest.raises(EngineBuildError, match="no nvcc: install NVIDIA's CUDA toolkit"):
        need(machine, wanted)
    compiler(machine, "nvcc")
    with pytest.raises(EngineBuildError, match=r"CUDA toolkit of .*nvcc lacks cuda_runtime.h"):
        need(machine, wanted)
    header(machine, "cuda_runtime.h")
    with pytest.raises(EngineBuildError, match=r"toolkit of .*nvcc lacks cuBLAS: install libcublas-dev"):
        need(machine, wanted)
    header(machine, "cublas_v2.h")
    with pytest.raises(EngineBuildError, match=r"no NVIDIA GPU was found here.*--cuda-arch 90 \(H100\)"):
        need(machine, wanted)
    need(machine, order(ComputeBackend.CUDA, "90"))
    script(machine / "dev" / "nvidia0", "")
    need(machine, wanted)


def test_hip_needs_a_current_rocm(machine: Path) -> None:
    wanted = order(ComputeBackend.HIP)
    with pytest.raises(EngineBuildError, match=r"no hipcc: install AMD's ROCm 6.1 or newer"):
        need(machine, wanted)
    compiler(machine, "hipcc")
    header(machine, "hip/hip_version.h", "#define HIP_VERSION 50200000\n")
    with pytest.raises(EngineBuildError, match=r"ROCm is older than 6.1"):
        need(machine, wanted)
    header(machine, "hip/hip_version.h", "#define HIP_VERSION 60300000\n")
    with pytest.raises(EngineBuildError, match="ROCm lacks rocBLAS: apt-get install rocblas-dev"):
        need(machine, wanted)
    header(machine, "rocblas/rocblas.h")
    header(machine, "hipblas/hipblas.h")
    need(machine, wanted)
    script(machine / "bin" / "hipconfig", 'case "$1" in -l) echo /opt/llvm/bin ;; -R) echo /opt/rocm ;; esac')
    found = backends.build_environment(wanted, str(machine / "bin"))
    assert found == {"HIPCXX": "/opt/llvm/bin/clang", "HIP_PATH": "/opt/rocm"}


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (order(), {"BUILD_SHARED_LIBS": "OFF"}),
        (order(ComputeBackend.CUDA), {"GGML_CUDA": "ON", "CMAKE_CUDA_ARCHITECTURES": "native"}),
        (order(ComputeBackend.CUDA, "80;90"), {"CMAKE_CUDA_ARCHITECTURES": "80;90", "GGML_CUDA_NCCL": "OFF"}),
        (order(ComputeBackend.VULKAN), {"GGML_VULKAN": "ON"}),
        (order(ComputeBackend.HIP), {"GGML_HIP": "ON"}),
    ],
)
def test_cmake_is_told_what_to_build_for(machine: Path, wanted: Order, expected: dict[str, str]) -> None:
    script(machine / "cuda" / "nvcc", "")  # where its installer puts it
    found = Compilation(source=machine, folder=machine, order=wanted).definitions(os.defpath)
    assert expected.items() <= found.items()
    assert found.get("CMAKE_CUDA_COMPILER", str(machine / "cuda/nvcc")) == str(machine / "cuda/nvcc")
    assert sum(name in found for name in ("GGML_CUDA", "GGML_VULKAN", "GGML_HIP")) <= 1


@pytest.mark.parametrize(
    ("stub", "loader", "expected"),
    [
        (True, "", {}),
        (False, "libcuda.so.1 (libc6,x86-64) => /lib/libcuda.so.1", {"CUDA_cuda_driver_LIBRARY": "/lib/libcuda.so.1"}),
        (False, "libcudart.so.13 (libc6,x86-64) => /lib/libcudart.so.13", {"GGML_CUDA_NO_VMM": "ON"}),
    ],
    ids=["stub", "driver", "neither"],
)
def test_cuda_is_configured_for_the_toolkit_of_that_nvcc_and_the_driver_that_is_here(
    machine: Path, monkeypatch: pytest.MonkeyPatch, stub: bool, loader: str, expected: dict[str, str]
) -> None:
    toolkit = machine / "toolkit"
    script(toolkit / "bin" / "nvcc", f"echo '#$ TOP={toolkit}/bin/..' >&2")
    script(machine / "bin" / "nvcc", f'exec {toolkit}/bin/nvcc "$@"')  # as some installers put it on PATH
    if stub:
        script(toolkit / "lib64" / "stubs" / "libcuda.so", "")
    script(machine / "bin" / "ldconfig", f"echo '1 libs found in cache'; echo '\t{loader}'")
    monkeypatch.setattr(os, "defpath", str(machine / "bin"))
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    found = backends.definitions(order(ComputeBackend.CUDA), str(machine / "bin"))
    assert found["CUDAToolkit_ROOT"] == str(toolkit)
    names = {"CUDA_cuda_driver_LIBRARY", "GGML_CUDA_NO_VMM"}
    assert {name: value for name, value in found.items() if name in names} == expected


def test_cuda_takes_a_driver_that_only_ld_library_path_knows(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(machine / "cuda" / "nvcc", "")
    script(machine / "driver" / "libcuda.so.1", "")
    monkeypatch.setattr(os, "defpath", str(machine / "bin"))
    monkeypatch.setenv("LD_LIBRARY_PATH", f"/nowhere:{machine}/driver")
    found = backends.definitions(order(ComputeBackend.CUDA), str(machine / "bin"))
    assert found["CUDA_cuda_driver_LIBRARY"] == f"{machine}/driver/libcuda.so.1"


def test_cuda_takes_cublas_from_pypi_where_the_toolkit_has_none(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvcc = machine / "toolkit" / "bin" / "nvcc"
    body = f"""case "$*" in
*dryrun*) echo '#$ TOP={machine}/toolkit' >&2 ;;
*version*) echo 'release 13.0' ;;
*) exec {CXX} -nostdinc -E -x c++ -I{machine}/toolkit/include "$(eval echo \\${{$#}})"
esac"""
    script(nvcc, body)
    for name in ("toolkit/include/cuda_runtime.h", "dev/nvidia0"):
        script(machine / name, "")
    wanted, path = order(ComputeBackend.CUDA), os.pathsep.join((str(nvcc.parent), str(machine / "bin")))
    with pytest.raises(EngineBuildError, match=r"lacks cuBLAS: .*`pip install nvidia-cublas`"):
        backends.require(wanted, path)
    package = machine / "site" / "nvidia" / "cu13"
    for name in ("include/cublas_v2.h", "lib/libcublas.so.13", "lib/libcublasLt.so.13"):
        script(package / name, "")
    monkeypatch.syspath_prepend(machine / "site")
    backends.require(wanted, path)
    found = backends.definitions(wanted, path)
    assert found["CUDA_cublas_LIBRARY"] == str(package / "lib" / "libcublas.so.13")
    assert found["CUDA_cublasLt_LIBRARY"] == str(package / "lib" / "libcublasLt.so.13")
    assert backends.build_environment(wanted, path) == {"CPATH": str(package / "include")}
    script(machine / "toolkit" / "include" / "cublas_v2.h", "")
    assert backends.build_environment(wanted, path) == {}
    assert "CUDA_cublas_LIBRARY" not in backends.definitions(wanted, path)
