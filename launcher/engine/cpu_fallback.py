"""Guards against a silent CPU fallback: a llama-server that finds no GPU serves from the CPU, with /health 200.

That happens after a boot in which the driver was not up yet (llama.cpp#27923). So the devices are named on the command
line, which makes a missing one an error; the engine's output is searched; and the golden check has a minimum speed.
"""

import re
from collections.abc import Iterable

from launcher.engine.devices import Devices
from launcher.engine.discovery import Engine
from launcher.errors import EngineError, StartError
from launcher.settings.config import EngineSettings, Settings

_FIX = "check the driver (`nvidia-smi`, `vulkaninfo`) and `trillama doctor`, or set require_gpu = false under [engine]"
FALLBACK = re.compile(r"no usable GPU found|failed to initialize CUDA|no CUDA-capable device")
OFFLOADED = re.compile(r"offloaded (\d+)/(\d+) layers to GPU")


def gpu_is_required(settings: EngineSettings, devices: Devices) -> bool:
    """As `require_gpu` says; "auto" means: if layers are to go to a GPU and the engine was built for one."""
    if settings.require_gpu == "auto":
        return settings.gpu_layers > 0 and devices.has_gpu_backend
    return settings.require_gpu


def check_devices(settings: EngineSettings, devices: Devices, engine: Engine) -> None:
    """If a GPU is required: raises EngineError if the engine cannot use one, StartError if it finds none now."""
    if not gpu_is_required(settings, devices) or devices.gpus:
        return
    if not devices.has_gpu_backend:
        raise EngineError(
            f"require_gpu = true, but {engine.name} computes on the CPU only: "
            "run `trillama engine build --cuda`, or with --vulkan or --hip"
        )
    raise StartError(f"{engine.name} finds no GPU, and would silently compute on the CPU: {_FIX}")


def adapt_gpu_layers(settings: Settings, devices: Devices) -> Settings:
    """The settings with `gpu_layers` 0 if the engine has no code for a GPU.

    With more it would do the same, but log a three-line warning for each model.
    """
    engine = settings.host.engine
    if not engine.gpu_layers or not devices.only_cpu:
        return settings
    return settings.with_host(engine=engine.model_copy(update={"gpu_layers": 0}))


def find_fallback(lines: Iterable[str]) -> str | None:
    """The sign of a CPU fallback in an engine's output, with the fix; None if there is none."""
    for line in lines:
        if FALLBACK.search(line):
            return f"the engine computes on the CPU ({line.strip()}): {_FIX}"
        if (found := OFFLOADED.search(line)) and int(found[1]) < int(found[2]):
            return f"only {found[1]} of {found[2]} layers are on the GPU: set gpu_layers = {found[2]} under [engine]"
    return None
