"""The checks of the engine, its devices and the memory plan."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from launcher.doctor import host
from launcher.doctor.finding import Finding, fail, ok, warn
from launcher.engine import build_record
from launcher.engine.cpu_fallback import adapt_gpu_layers
from launcher.engine.devices import Devices
from launcher.engine.discovery import Engine, Origin
from launcher.errors import ConfigError, EngineError, NotEnoughMemory
from launcher.host import processor, wsl
from launcher.host.cores import engine_threads, physical_cores, usable_cores
from launcher.images import requirements
from launcher.planning.memory import GIB
from launcher.planning.placement import Plan
from launcher.planning.sizing import decide, unified_note
from launcher.settings.config import Settings

BUILD = requirements.BUILD_COMMAND
BUILD_FOR = {"NVIDIA": f"{BUILD} --cuda", "AMD": f"{BUILD} --vulkan"}
# By a processor's instructions, the largest gain first. Measured with Q8_0, 4 layers x 896, on two cores.
GAINS = {
    "amx_int8": "this processor has AMX, with which an engine built here is about 4 times as fast",
    "avx512f": "this processor has AVX-512, with which an engine built here is 1.2 to 1.4 times as fast",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What these checks look at: the settings, the engine and its devices."""

    settings: Settings
    engine: Engine
    devices: Devices

    @property
    def wants_gpu(self) -> bool:
        return self.settings.host.engine.gpu_layers > 0


async def chosen_engine(machine: Machine) -> Finding:
    """Which engine, which optional flags it knows, and whether one built here would be faster."""
    known = [flag for flag in ("--no-logits-for-embeddings", "--fit") if flag in machine.engine.flags]
    text = f"{machine.engine.origin} llama.cpp {machine.engine.version}, which knows {', '.join(known) or 'no extras'}"
    if machine.devices.has_gpu_backend or (machine.wants_gpu and host.pci_gpus()):
        return ok(text)  # a GPU computes, or `devices` says what to build
    if gain := _gain(machine.engine, processor.instructions()):
        return warn(f"{text}; {gain}", BUILD)
    if machine.engine.origin is Origin.BUILT and build_record.read_record(Path(machine.engine.argv[0])) is None:
        return warn(f"{text}; what processor it was built for is not known: its record is missing or damaged", BUILD)
    if machine.engine.origin is Origin.EMBEDDED:
        return ok(f"{text}; `{BUILD}` makes one for this processor")
    return ok(text)


def _gain(engine: Engine, here: frozenset[str]) -> str | None:
    """What an engine built for the instructions `here` would gain; None if it was built for them."""
    record = build_record.read_record(Path(engine.argv[0])) if engine.origin is Origin.BUILT else None
    if record is None and engine.origin is not Origin.EMBEDDED:
        return None  # the processor it was built for is unknown
    built_for = record.order.instructions if record else ()
    gains = (text for instruction, text in GAINS.items() if instruction in here and instruction not in built_for)
    return next(gains, None)


async def images(machine: Machine) -> Finding:
    """Whether images are on, and whether this engine can serve them."""
    if not machine.settings.host.models.images:
        takes_images = machine.settings.family.weights.mmproj is not None
        return ok("off; `images = true` under [models] turns them on" if takes_images else "none: it takes texts only")
    try:
        requirements.check_images(machine.settings, machine.engine)
    except EngineError as error:
        return fail(str(error), BUILD)
    except ConfigError as error:
        return fail(str(error), "correct [models] and max_input_tokens")
    if machine.devices.gpus and machine.wants_gpu:
        return ok("on, computed by the GPU")
    return warn("on, computed by the CPU: seconds to minutes for each", "use a GPU for more than a few images")


async def flash_attention(machine: Machine) -> Finding:
    """Flash attention is `auto`: used wherever the device supports it."""
    where = "GPU" if machine.devices.gpus and machine.wants_gpu else "CPU"
    return ok(f"auto, on the {where}; on a GPU it is worth 1.7 times the speed")


async def devices(machine: Machine) -> Finding:
    """The GPUs that the engine can use, compared with those that are installed."""
    listed = ", ".join(
        f"{one.name} {one.description} ({one.free_bytes / GIB:.1f} of {one.total_bytes / GIB:.1f} GiB free)"
        for one in machine.devices.gpus
    )
    if listed and machine.wants_gpu:
        return ok("; ".join((listed, *_memory_notes(machine.devices))))
    if listed:
        return warn(f"{listed}; it is not used", "set gpu_layers = 99 under [engine]")
    if not machine.wants_gpu:
        return ok("gpu_layers = 0: the CPU computes")
    if machine.devices.has_gpu_backend:
        ask = "vulkaninfo --summary" if host.pci_gpus() == ["AMD"] else "nvidia-smi"
        fix = f"export LD_LIBRARY_PATH={wsl.LIBRARIES}  # Windows' driver" if wsl.wsl() else ask
        return fail(
            "the engine can use a GPU but finds none, so the CPU would compute without notice",
            f"{fix}  # repair the driver, or set gpu_layers = 0 under [engine]",
        )
    if built_in := host.pci_gpus():
        fix = next(command for vendor, command in BUILD_FOR.items() if vendor in built_in)
        return warn(f"a GPU is installed ({', '.join(built_in)}) that this engine cannot use", fix)
    return ok("there is no GPU: the CPU computes")


def _memory_notes(devices: Devices) -> Iterator[str]:
    if devices.unified:
        yield unified_note(devices)
    for one in devices.unused:
        yield f"{one.name} {one.description} is not used: its memory is the host's"


async def threads(machine: Machine) -> Finding:
    """The engine's threads, compared with the cores that they may use."""
    wanted, cores = machine.settings.host.engine.threads, usable_cores()
    if wanted and wanted > cores:
        text = f"threads = {wanted}, but {cores} cores may be used: threads without a core slow down all others"
        return warn(text, f"set threads = {physical_cores()} under [engine], or leave it out")
    chosen = wanted or engine_threads()
    return ok(f"{chosen} for each model" if chosen else "the engine's own choice: the physical cores")


async def memory_plan(machine: Machine) -> Finding:
    """The outcome of `trillama plan`."""
    settings = adapt_gpu_layers(machine.settings, machine.devices)
    try:
        decision = decide(settings, machine.engine, machine.devices, tuple(settings.family.weights.models))
    except NotEnoughMemory as error:
        return fail(str(error), "trillama plan")
    if settings.host.demo:
        return ok("the made-up models fit anywhere")
    if decision.short:
        return warn("; ".join(decision.notes), "trillama plan")
    if decision.plan is None:
        return warn("the size of the models is not known before they are downloaded", "trillama plan")
    return ok(_summary(decision.plan))


def _summary(plan: Plan) -> str:
    needs = [one.need for one in plan.placed]
    vram, ram = sum(one.vram for one in needs) / GIB, sum(one.ram for one in needs) / GIB
    sizes = f"{vram:.1f} GiB of VRAM and {ram:.1f} GiB of RAM" if vram else f"{ram:.1f} GiB of RAM"
    turns = f", {len(plan.on_demand)} on demand" if plan.on_demand else ""
    models = "1 model" if len(needs) == 1 else f"{len(needs)} models"
    return f"{models} at {plan.quantization}, texts of up to {plan.batch_tokens} tokens{turns}: {sizes}"
