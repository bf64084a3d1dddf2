"""What building an engine for each kind of GPU requires, and cmake's definitions for it.

A missing requirement is reported, with how to install it, before anything is downloaded or compiled: cmake would report
it in a page of output, or only the compiler would, after minutes.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher.engine.build_record import ComputeBackend, Order
from launcher.errors import EngineBuildError
from launcher.host import wsl

_PROBE_TIMEOUT_S = 60.0
CUDA_BIN, ROCM_BIN = "/usr/local/cuda/bin", "/opt/rocm/bin"  # their installers do not put them on PATH
DEVICES = Path("/dev")
NO_NVCC = "there is no nvcc: install NVIDIA's CUDA toolkit, and put its bin folder on PATH"
NO_GLSLC = "there is no glslc, which compiles the shaders: apt-get install glslc, or install LunarG's Vulkan SDK"
NO_HIPCC = "there is no hipcc: install AMD's ROCm 6.1 or newer, and put its bin folder on PATH"
NO_CARD = (
    "no NVIDIA GPU was found here, so give the compute capability of the one to build for: "
    "--cuda-arch 90 (H100), 89 (RTX 40, L4), 86 (RTX 30), 80 (A100), 75 (T4)"
)
CUBLAS = "install libcublas-dev of the same version, or `pip install nvidia-cublas` into trillama's environment"
VULKAN_SDK = "set VULKAN_SDK to a folder with newer ones in include/ (docs/engine.md), or install LunarG's Vulkan SDK"


@dataclass(frozen=True, slots=True)
class _Header:
    """A header that must exist and make `condition`, if there is one, true. `error` is the message if it does not."""

    path: str
    condition: str
    error: str

    @property
    def probe(self) -> str:
        """A source that can be preprocessed only where the header is right."""
        included = f"#include <{self.path}>\n" if self.condition else ""
        wanted = self.condition or "1"
        return f"#if !__has_include(<{self.path}>)\n#error\n#endif\n{included}#if !({wanted})\n#error\n#endif\n"


_HEADERS: Mapping[ComputeBackend, Sequence[_Header]] = {
    ComputeBackend.CPU: (),
    ComputeBackend.CUDA: (
        _Header("cuda_runtime.h", "", "the CUDA toolkit of {compiler} lacks cuda_runtime.h: install cuda-cudart-dev"),
        _Header("cublas_v2.h", "", f"the CUDA toolkit of {{compiler}} lacks cuBLAS: {CUBLAS}"),
    ),
    ComputeBackend.VULKAN: (
        _Header("vulkan/vulkan_core.h", "", "there are no Vulkan headers: apt-get install libvulkan-dev"),
        _Header("vulkan/vulkan_core.h", "VK_EXT_layer_settings", f"the Vulkan headers are too old: {VULKAN_SDK}"),
        _Header("spirv/unified1/spirv.hpp", "", "there are no SPIR-V headers: apt-get install spirv-headers"),
    ),
    ComputeBackend.HIP: (
        _Header("hip/hip_version.h", "HIP_VERSION >= 60100000", "ROCm is older than 6.1: install a newer one"),
        _Header("rocblas/rocblas.h", "", "ROCm lacks rocBLAS: apt-get install rocblas-dev"),
        _Header("hipblas/hipblas.h", "", "ROCm lacks hipBLAS: apt-get install hipblas-dev"),
    ),
}


def require(order: Order, path: str) -> None:
    """Raises EngineBuildError with what a build of `order` lacks, and how to install it. Tools are in `path`."""
    for name, default in (("CC", "cc"), ("CXX", "c++")):  # as cmake finds them
        compiler = _given(name, default)
        if not shutil.which(compiler, path=path):
            raise EngineBuildError(f"there is no compiler {compiler}: apt-get install build-essential, or set ${name}")
    if order.backend is ComputeBackend.CPU:
        return
    compiler, *options = _preprocessor(order.backend, path)
    env = {**os.environ, **(_cublas_headers(compiler) if order.backend is ComputeBackend.CUDA else {})}
    for header in _HEADERS[order.backend]:
        if not _preprocesses((compiler, *options, "-"), header.probe, env):
            raise EngineBuildError(header.error.format(compiler=compiler))
    if order.backend is ComputeBackend.CUDA and not order.architectures and not _nvidia_gpu():
        raise EngineBuildError(NO_CARD)


def definitions(order: Order, path: str) -> Mapping[str, str]:
    """cmake's definitions for the GPUs of `order`."""
    match order.backend:
        case ComputeBackend.CUDA:
            nvcc = _tool("nvcc", NO_NVCC, path, CUDA_BIN)
            toolkit = _toolkit(nvcc)
            return {
                "GGML_CUDA": "ON",
                "CMAKE_CUDA_COMPILER": nvcc,
                "CUDAToolkit_ROOT": str(toolkit),  # else cmake uses that of the nvcc on PATH, which may be another
                "CMAKE_CUDA_ARCHITECTURES": order.architectures or "native",
                "CMAKE_BUILD_RPATH": f"$ORIGIN;{toolkit}/lib64;{toolkit}/lib",  # cmake leaves the toolkit out
                "GGML_CUDA_FA_QUANTS": "f16-f16",  # our KV cache is always F16
                "GGML_CUDA_NCCL": "OFF",  # for tensors split over several GPUs, which we never ask for
                **_driver(toolkit),
                **_cublas_libraries(nvcc),
            }
        case ComputeBackend.VULKAN:
            return {"GGML_VULKAN": "ON"}
        case ComputeBackend.HIP:
            return {"GGML_HIP": "ON", "GGML_CUDA_FA_QUANTS": "f16-f16"}
        case ComputeBackend.CPU:
            return {}


def build_environment(order: Order, path: str) -> Mapping[str, str]:
    """Variables to add to cmake's environment: ROCm's compiler, the headers of PyPI's cuBLAS."""
    match order.backend:
        case ComputeBackend.CUDA:
            return _cublas_headers(_tool("nvcc", NO_NVCC, path, CUDA_BIN))
        case ComputeBackend.HIP:
            config = _tool("hipconfig", NO_HIPCC, path, ROCM_BIN)
            found = {"HIPCXX": f"{_output(config, '-l')}/clang", "HIP_PATH": _output(config, "-R")}
            return {name: os.environ.get(name, value) for name, value in found.items()}
        case _:
            return {}


def _toolkit(nvcc: str) -> Path:
    """The folder of the toolkit, as nvcc itself finds it: nvcc may be a link or a script."""
    done = subprocess.run((nvcc, "--dryrun", "-x", "cu", "-c", os.devnull), capture_output=True, text=True, check=False)
    found = re.search(r"^#\$ TOP=(.+)$", done.stderr, re.MULTILINE)
    return Path(found[1]).resolve() if found else Path(nvcc).resolve().parents[1]


def _cublas(nvcc: str) -> Path | None:
    """The folder of PyPI's `nvidia-cublas` for this nvcc in our environment, if the toolkit has no cuBLAS itself."""
    toolkit, version = _toolkit(nvcc), re.search(r"release (\d+)", _output(nvcc, "--version"))
    if (
        version is None
        or any(toolkit.glob("include/cublas_v2.h"))
        or any(toolkit.glob("targets/*/include/cublas_v2.h"))
    ):
        return None
    places = (Path(folder, "nvidia", name) for folder in sys.path for name in (f"cu{version[1]}", "cublas"))
    return next((place for place in places if (place / "include" / "cublas_v2.h").is_file()), None)


def _cublas_headers(nvcc: str) -> Mapping[str, str]:
    if (cublas := _cublas(nvcc)) is None:
        return {}
    return {"CPATH": os.pathsep.join(filter(None, (os.environ.get("CPATH"), str(cublas / "include"))))}


def _cublas_libraries(nvcc: str) -> Mapping[str, str]:
    if (cublas := _cublas(nvcc)) is None:
        return {}
    found = {name: sorted((cublas / "lib").glob(f"lib{name}.so.*")) for name in ("cublas", "cublasLt")}
    return {f"CUDA_{name}_LIBRARY": str(files[0]) for name, files in found.items() if files}


def _driver(toolkit: Path) -> Mapping[str, str]:
    """Which driver library (libcuda) to link; memory pools that grow in place (VMM) need it.

    The toolkit's stub, which cmake finds by itself, else the installed driver; without either, VMM is turned off.
    """
    if any(toolkit.glob("**/stubs/libcuda.so")):
        return {}
    known = _output(shutil.which("ldconfig", path=f"{os.defpath}:/sbin:/usr/sbin") or "true", "-p")
    found = re.findall(r"^\s*libcuda\.so\.1 \(.*64.*\) => (.+)$", known, re.MULTILINE)
    folders = os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    found += [str(driver) for folder in folders if (driver := Path(folder, "libcuda.so.1")).is_file()]
    return {"CUDA_cuda_driver_LIBRARY": found[0]} if found else {"GGML_CUDA_NO_VMM": "ON"}


def _preprocessor(backend: ComputeBackend, path: str) -> tuple[str, ...]:
    """The preprocessor's command, which searches for headers where this backend's build does."""
    sdk = os.environ.get("VULKAN_SDK")
    match backend:
        case ComputeBackend.CUDA:
            return _tool("nvcc", NO_NVCC, path, CUDA_BIN), "-E", "-x", "cu"
        case ComputeBackend.HIP:
            return _tool("hipcc", NO_HIPCC, path, ROCM_BIN), "-E", "-x", "c++"
        case _:
            _tool("glslc", NO_GLSLC, path, f"{sdk}/bin" if sdk else "")
            cxx = shutil.which(_given("CXX", "c++"), path=path) or "c++"
            return cxx, "-E", "-x", "c++", *([f"-I{sdk}/include"] if sdk else [])


def _preprocesses(command: Sequence[str], source: str, env: Mapping[str, str]) -> bool:
    try:
        done = subprocess.run(
            command, input=source.encode(), capture_output=True, timeout=_PROBE_TIMEOUT_S, env=env, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineBuildError(f"{command[0]} does not run: {error}") from error
    return done.returncode == 0


def _tool(name: str, missing: str, path: str, folder: str) -> str:
    """The program's path. Raises EngineBuildError saying `missing`."""
    if found := shutil.which(name, path=os.pathsep.join(filter(None, (path, folder)))):
        return found
    raise EngineBuildError(missing)


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_PROBE_TIMEOUT_S, check=False)
    return done.stdout.strip()


def _given(name: str, default: str) -> str:
    return (os.environ.get(name) or default).split()[0]  # it may include flags


def _nvidia_gpu() -> bool:
    return any(DEVICES.glob("nvidia[0-9]*")) or any(DEVICES.glob(wsl.DEVICE.name))
