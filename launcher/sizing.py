"""Settings + engine + devices → the plan, or the reason why there is none."""

import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from huggingface_hub import try_to_load_from_cache

from launcher.config import Mode, Settings, cache_dir
from launcher.engine import Engine
from launcher.errors import ConfigError, ModelError, NotEnoughMemory
from launcher.family import Family
from launcher.gguf_file import read_header
from launcher.gpu import Device, Devices
from launcher.memory import GIB, MIB, Shape, Weights, weights_of
from launcher.plan import Placed, Plan, Room, Wish, place
from launcher.ranking import ranking

AUTO = "auto"
UNQUANTIZED = frozenset({"F32", "F16", "BF16"})
# Left alone on each device: what our sums do not see (alignment, fragments, the desktop), and what others ask for.
RESERVE_PART, RESERVE_BYTES = 0.05, 256 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """`settings` as they are to be served: quantisation and length are the plan's. `notes` are lines for the user.

    `short`: what is free is not enough.
    """

    settings: Settings
    plan: Plan | None
    notes: tuple[str, ...] = ()
    short: bool = False
    room: Room | None = None

    @property
    def capacity(self) -> dict[str, int]:
        """The bytes of each device that all models may take together; empty without a plan."""
        return {**self.room.gpus, "RAM": self.room.ram} if self.room else {}

    @property
    def placements(self) -> dict[str, Placed]:
        """Each backend's place; empty without a plan."""
        return {one.name: one for one in self.plan.placed} if self.plan else {}


def decide(
    settings: Settings, engine: Engine, devices: Devices, names: Sequence[str], *, ours: Mapping[str, int] | None = None
) -> Decision:
    """What to serve of `names` on these devices. `ours` are bytes by device that our own models hold.

    What "auto" has chosen once it chooses again as long as that fits: another quantisation gives other vectors.
    Raises NotEnoughMemory only where the whole memory of the GPUs would not do: what others hold may come back, and a
    process may get by with less RAM than it asks for. Demo models are not planned: they fit anywhere.
    """
    auto = settings.host.models.quantization == AUTO
    planned = tuple(settings.family.weights.models) if auto else names  # a call for one model gets what a server serves
    if settings.host.demo or (wish := wish_of(settings, engine.flags, planned)) is None:
        return Decision(settings=_served(settings, None), plan=None)
    devices = _with(devices if wish.gpu_layers else replace(devices, gpus=()), ours or {})
    if not auto:
        return chosen(settings, wish, devices)
    memory = cache_dir() / "auto" / f"{settings.family.name}.txt"
    decision = _chosen_again(settings, wish, devices, memory) or chosen(settings, wish, devices)
    if decision.plan and (unkept := _unkept(memory, decision.plan.quantization)):
        return replace(decision, notes=(*decision.notes, unkept))
    return decision


def _unkept(memory: Path, quantization: str) -> str | None:
    """Keep the choice; a note where that fails, for it can be served without. What is there is never half replaced."""
    unfinished = memory.with_suffix(".unfinished")
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(quantization, encoding="utf-8")
        unfinished.replace(memory)
    except OSError as error:
        return f"the choice of {quantization} cannot be kept ({error}): set it as quantization under [models]"
    return None


def _chosen_again(settings: Settings, wish: Wish, devices: Devices, memory: Path) -> Decision | None:
    with suppress(OSError, NotEnoughMemory):
        before = memory.read_text(encoding="utf-8")
        if before in {name for names in wish.ranking for name in names}:
            decision = chosen(settings, replace(wish, quantization=before), devices)
            return decision if decision.plan else None
    return None


def _with(devices: Devices, ours: Mapping[str, int]) -> Devices:
    """The devices as they are once our own models let go of them."""

    def freed(one: Device) -> Device:
        return replace(one, free_bytes=min(one.total_bytes, one.free_bytes + ours.get(one.name, 0)))

    return replace(devices, gpus=tuple(freed(one) for one in devices.gpus), ram=freed(devices.ram))


def chosen(settings: Settings, wish: Wish, devices: Devices) -> Decision:
    """The plan for what is free, else the one for all that there is, with a warning; see `decide`."""
    on_gpu, room = bool(devices.gpus) and wish.gpu_layers > 0, room_of(devices)
    try:
        plan = place(wish, room)
    except NotEnoughMemory as error:
        short = str(error)
    else:
        auto, spilt = settings.host.models.quantization == AUTO, set(plan.on_demand) - wish.on_demand
        notes = (_capital("; ".join(plan.reasons)),) if auto or plan.batch_tokens < wish.tokens or spilt else ()
        return Decision(settings=_served(settings, plan), plan=plan, notes=notes, room=room)
    whole = Room(
        gpus={one.name: one.total_bytes for one in devices.gpus},
        ram=sys.maxsize if on_gpu else devices.ram.total_bytes,
    )
    try:
        plan = place(wish, whole)
    except NotEnoughMemory:
        if on_gpu:
            raise
        return Decision(
            settings=_served(settings, None), plan=None, notes=(f"memory may run out: {short}",), short=True
        )
    notes = (f"a model may fail to start: {short}",)
    return Decision(settings=_served(settings, plan), plan=plan, notes=notes, short=True, room=whole)


def room_of(devices: Devices) -> Room:
    """What of the free memory a plan may take: all but a reserve on each device."""
    return Room(gpus={one.name: _usable(one) for one in devices.gpus}, ram=_usable(devices.ram))


def wish_of(settings: Settings, flags: Collection[str], names: Sequence[str]) -> Wish | None:
    """What is to be planned; None where the size of a file cannot be known before it is here.

    `flags` are the engine's. Raises ConfigError for "auto" where the family has no published figures, and ModelError
    for a local file that cannot be read.
    """
    host, offered = settings.host, settings.family.weights
    classes = ranking(offered.published.quantizations) if offered.published else ()
    auto = host.models.quantization == AUTO
    if auto and not classes:
        raise ConfigError(f'[models] quantization = "auto": {settings.family.name} has no published figures; name one')
    quantization = None if auto else host.models.quantization or offered.quantization
    considered = {one for names_ in classes for one in names_} | ({quantization} if quantization else set())
    weights = {name: _weights(settings, name, considered) for name in names}
    known = considered.intersection(*weights.values())
    if quantization is not None and quantization not in known:
        return None
    return Wish(
        weights=weights,
        ranking=tuple(kept for one in classes if (kept := tuple(name for name in one if name in known))),
        quantization=quantization,
        tokens=settings.max_input_tokens,
        fixed_tokens=host.max_input_tokens is not None,
        gpu_layers=host.engine.gpu_layers,
        logits="--no-logits-for-embeddings" not in flags,
        on_demand=frozenset(name for name in names if settings.backend(name).mode is Mode.ON_DEMAND),
    )


def _usable(device: Device) -> int:
    return max(0, round(device.free_bytes * (1 - RESERVE_PART)) - RESERVE_BYTES)


def _served(settings: Settings, plan: Plan | None) -> Settings:
    """The settings with the plan's choices in them; without a plan, the family's quantisation for "auto"."""
    host = settings.host
    quantization = plan.quantization if plan else settings.family.weights.quantization
    if host.models.quantization == AUTO:
        settings = settings.with_host(models=host.models.model_copy(update={"quantization": quantization}))
    if plan and plan.batch_tokens < settings.max_input_tokens:
        settings = settings.with_host(max_input_tokens=plan.batch_tokens)
    return settings


def _weights(settings: Settings, name: str, quantizations: Collection[str]) -> dict[str, Weights]:
    """One backend's file at each quantisation: the user's own, else what is in the cache, else as it was published."""
    if local := settings.host.models.files.get(name):
        own = weights_of(read_header(local))
        return dict.fromkeys(quantizations, own) if own else {}
    found = {one: _cached(settings.family, name, one) or _published(settings.family, one) for one in quantizations}
    return {quantization: weights for quantization, weights in found.items() if weights}


def _cached(family: Family, name: str, quantization: str) -> Weights | None:
    source = family.weights.models[name]
    path = try_to_load_from_cache(source.repo, source.file.format(quantization=quantization))
    with suppress(ModelError):  # a damaged one is found, and said, when it is to be served
        return weights_of(read_header(Path(path))) if isinstance(path, str) else None
    return None


def _published(family: Family, quantization: str) -> Weights | None:
    offered = family.weights
    if offered.shape is None or offered.published is None or quantization not in offered.published.quantizations:
        return None
    return Weights(
        file_bytes=round(offered.published.quantizations[quantization].file_gib * GIB),
        shape=Shape(**offered.shape.model_dump()),
        unquantized=quantization in UNQUANTIZED,
    )


def _capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]
