"""Decides what to serve from settings, engine and devices, and remembers the decision."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from launcher.engine.device_list import MIB, Device
from launcher.engine.devices import Devices
from launcher.engine.discovery import Engine
from launcher.errors import NotEnoughMemory
from launcher.planning import choices
from launcher.planning.candidates import DeviceRoom, PlanRequest
from launcher.planning.choices import Length
from launcher.planning.placement import Placement, Plan, place
from launcher.planning.request import AUTO, request_of
from launcher.settings.config import Settings

# Left free on each device for what our estimate misses (alignment, fragmentation, the desktop) and other programs.
RESERVE_PART, RESERVE_BYTES = 0.05, 256 * MIB
OURS_OF_RAM = 0.75


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """`settings` as they will be served: quantisation and length are the plan's. `notes` are lines for the user.

    `short`: free memory is not enough. `quantization` and `length` are those that were ours to choose.
    """

    settings: Settings
    plan: Plan | None
    notes: tuple[str, ...] = ()
    short: bool = False
    room: DeviceRoom | None = None
    quantization: str | None = None
    length: Length | None = None

    @property
    def capacity(self) -> dict[str, int]:
        """The bytes of each device that all models together may use; empty without a plan."""
        return {**self.room.gpus, "RAM": self.room.ram} if self.room else {}

    @property
    def placements(self) -> dict[str, Placement]:
        """Each backend's place; empty without a plan."""
        return {one.name: one for one in self.plan.placed} if self.plan else {}


def decide(
    settings: Settings, engine: Engine, devices: Devices, names: Sequence[str], *, ours: Mapping[str, int] | None = None
) -> Decision:
    """How to serve the backends `names` on these devices. `ours` are bytes by device that our own models hold now.

    "auto" repeats its earlier choice as long as that fits, because another quantisation gives other vectors. If the
    user has set no longest text, `fix_length` chooses it. `save_choices` makes both last.
    Raises NotEnoughMemory only if all memory of the GPUs would not be enough: other programs may free theirs, and a
    process may manage with less RAM than estimated. Demo models are not planned: they fit anywhere.
    """
    auto = settings.host.models.quantization == AUTO
    every = tuple(settings.family.weights.models)  # serving one model gives the same vectors as serving all
    if settings.host.demo or (request := request_of(settings, engine.flags, every if auto else names)) is None:
        return _without_sizes(settings)
    all_models = request if tuple(request.weights) == every else request_of(settings, engine.flags, every) or request
    devices = _without_ours(devices if request.gpu_layers else replace(devices, gpus=()), ours or {})
    before = choices.quantization(settings.family.name) if auto else None
    if before in {name for names_in_class in request.ranking for name in names_in_class}:
        repeated, all_repeated = (replace(one, quantization=before) for one in (request, all_models))
        with suppress(NotEnoughMemory):
            if (decision := _decide(settings, repeated, all_repeated, devices)).plan:
                return decision
    return _decide(settings, request, all_models, devices)


def save_choices(settings: Settings, decision: Decision) -> tuple[str, ...]:
    """Make the next start choose the same. Returns a note if that fails: this start can serve all the same."""
    quantization = decision.quantization
    try:
        choices.write_choices(settings.family.name, quantization, decision.length)
    except OSError as error:
        what = f"the choice of {quantization}" if quantization else "the length of the longest text"
        fix = "quantization under [models], and max_input_tokens" if quantization else "max_input_tokens"
        return (f"{what} cannot be kept for the next start ({error}): set {fix}",)
    return ()


def fix_length(request: PlanRequest, devices: Devices, before: Length | None) -> PlanRequest:
    """The request with a fixed longest text, chosen from the total memory, whoever uses it now.

    A length chosen `before` for the same models and devices stays.
    """
    if request.fixed_tokens:
        return request
    if before and before.holds_for(_models_of(request, request.quantization), _totals(devices)):
        tokens = min(request.tokens, before.max_input_tokens)
    else:
        try:
            tokens = place(request, _dependable_room(devices)).batch_tokens
        except NotEnoughMemory:
            tokens = min(request.tokens, request.least_tokens)
    return replace(request, tokens=tokens, fixed_tokens=True, wanted_tokens=request.tokens)


def _decide(settings: Settings, request: PlanRequest, all_models: PlanRequest, devices: Devices) -> Decision:
    """As `decide`; `all_models` is the request for all models, for which the length is chosen."""
    length = fix_length(all_models, devices, choices.length(settings.family.name))
    decision = plan_for(
        settings, replace(request, tokens=length.tokens, fixed_tokens=True, wanted_tokens=length.wanted_tokens), devices
    )
    if all_models.fixed_tokens or decision.plan is None:
        return decision
    served = _models_of(all_models, decision.plan.quantization)
    chosen = Length(max_input_tokens=length.tokens, served=served, totals=_totals(devices))
    return replace(decision, length=chosen)


def _models_of(request: PlanRequest, quantization: str | None) -> str:
    """Everything in a request that limits the length of texts, in words."""
    turns = f", {' and '.join(sorted(request.on_demand))} on demand" if request.on_demand else ""
    how = f"{'with logits' if request.logits else 'lean'}, {request.gpu_layers} layers on a GPU"
    how += (", images" if request.encoder_bytes else "") + ("" if request.flash_attention else ", no flash attention")
    return f"{', '.join(request.weights)} at {quantization}{turns}, up to {request.tokens} tokens; {how}"


def _totals(devices: Devices) -> dict[str, int]:
    return {one.name: one.total_bytes // MIB for one in (*devices.gpus, devices.ram)}


def _without_ours(devices: Devices, ours: Mapping[str, int]) -> Devices:
    """The devices as they will be once our own models release their memory."""
    shared = sum(ours.get(one.name, 0) for one in devices.gpus if one.integrated)

    def freed(one: Device, bytes_: int) -> Device:
        return replace(one, free_bytes=min(one.total_bytes, one.free_bytes + bytes_))

    gpus = tuple(freed(one, ours.get(one.name, 0)) for one in devices.gpus)
    return replace(devices, gpus=gpus, ram=freed(devices.ram, ours.get("RAM", 0) + shared))


def plan_for(settings: Settings, request: PlanRequest, devices: Devices) -> Decision:
    """The plan for the free memory, else for all memory, with a warning; see `decide`."""
    on_gpu, room = bool(devices.gpus) and request.gpu_layers > 0, room_of(devices)
    try:
        plan = place(request, room)
    except NotEnoughMemory as error:
        short = str(error)
    else:
        notes = tuple(_notes(settings, request, plan, devices))
        return _planned(settings, Decision(settings=_served(settings, plan), plan=plan, notes=notes, room=room))
    total = DeviceRoom(
        gpus={one.name: one.total_bytes for one in devices.gpus},
        ram=sys.maxsize if on_gpu and not devices.unified else devices.ram.total_bytes,
        unified=devices.unified,
    )
    try:
        plan = place(request, total)
    except NotEnoughMemory:
        if on_gpu:
            raise
        settings = _with_length(_served(settings, None), request.tokens)
        return Decision(settings=settings, plan=None, notes=(f"memory may run out: {short}",), short=True)
    notes = (f"a model may fail to start: {short}",)
    decision = Decision(settings=_served(settings, plan), plan=plan, notes=notes, short=True, room=total)
    return _planned(settings, decision)


def _planned(settings: Settings, decision: Decision) -> Decision:
    """The decision with the quantisation that was chosen, if the user left it to us."""
    chosen = decision.settings.host.models.quantization if settings.host.models.quantization == AUTO else None
    return replace(decision, quantization=chosen)


def _without_sizes(settings: Settings) -> Decision:
    """The decision while no file's size is known. "auto" keeps this choice later, or the vectors would change."""
    family, models = settings.family, settings.host.models
    if models.quantization != AUTO or settings.host.demo:
        return Decision(settings=_served(settings, None), plan=None)
    before = choices.quantization(family.name)
    chosen = before if before in family.weights.quantizations else family.weights.quantization
    note = f'quantization = "auto": {chosen}, because no file\'s size is known before the first download'
    served = settings.with_host(models=models.model_copy(update={"quantization": chosen}))
    return Decision(settings=served, plan=None, notes=(note,), quantization=chosen)


def _notes(settings: Settings, request: PlanRequest, plan: Plan, devices: Devices) -> Iterator[str]:
    moved = set(plan.on_demand) - request.on_demand
    if (
        settings.host.models.quantization == AUTO
        or plan.batch_tokens < (request.wanted_tokens or request.tokens)
        or moved
    ):
        yield _capital("; ".join(plan.reasons))
    if devices.unified and request.gpu_layers:
        yield unified_note(devices)


def unified_note(devices: Devices) -> str:
    """A note that the GPU has no memory of its own."""
    (gpu,) = devices.gpus
    return f"{gpu.name} ({gpu.description}) computes in the host's own memory: what the models take there is RAM too"


def room_of(devices: Devices) -> DeviceRoom:
    """The free memory that a plan may use: all but a reserve on each device."""
    ram = _usable(devices.ram.free_bytes)
    gpus = {one.name: _usable(one.free_bytes) for one in devices.gpus}
    return _room(devices, gpus, ram)


def _dependable_room(devices: Devices) -> DeviceRoom:
    """The memory to count on at any time: the GPUs less the reserve, and most of RAM, which other programs use too."""
    gpus = {one.name: _usable(one.total_bytes) for one in devices.gpus}
    return _room(devices, gpus, round(devices.ram.total_bytes * OURS_OF_RAM))


def _room(devices: Devices, gpus: Mapping[str, int], ram: int) -> DeviceRoom:
    if devices.unified:
        gpus = {name: min(size, ram) for name, size in gpus.items()}
    return DeviceRoom(gpus=gpus, ram=ram, unified=devices.unified)


def _usable(bytes_: int) -> int:
    return max(0, round(bytes_ * (1 - RESERVE_PART)) - RESERVE_BYTES)


def _served(settings: Settings, plan: Plan | None) -> Settings:
    """The settings with the plan's choices; without a plan, "auto" becomes the family's quantisation."""
    host = settings.host
    quantization = plan.quantization if plan else settings.family.weights.quantization
    if host.models.quantization == AUTO:
        settings = settings.with_host(models=host.models.model_copy(update={"quantization": quantization}))
    return _with_length(settings, plan.batch_tokens) if plan else settings


def _with_length(settings: Settings, tokens: int) -> Settings:
    return settings.with_host(max_input_tokens=tokens) if tokens < settings.max_input_tokens else settings


def _capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]
