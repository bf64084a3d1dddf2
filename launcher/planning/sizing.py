"""Settings + engine + devices → the plan, or the reason why there is none."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from launcher.engine.device_list import Device
from launcher.engine.devices import Devices
from launcher.engine.discovery import Engine
from launcher.errors import NotEnoughMemory
from launcher.planning import choices
from launcher.planning.candidates import MIN_TOKENS, DeviceRoom, PlanRequest
from launcher.planning.choices import Length
from launcher.planning.memory import MIB
from launcher.planning.placement import Placement, Plan, place
from launcher.planning.request import AUTO, request_of
from launcher.settings.config import Settings

# Left alone on each device: what our sums do not see (alignment, fragments, the desktop), and what others ask for.
RESERVE_PART, RESERVE_BYTES = 0.05, 256 * MIB
OURS_OF_RAM = 0.75


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """`settings` as they are to be served: quantisation and length are the plan's. `notes` are lines for the user.

    `short`: what is free is not enough. `length`: the longest text, where it was for us to choose.
    """

    settings: Settings
    plan: Plan | None
    notes: tuple[str, ...] = ()
    short: bool = False
    room: DeviceRoom | None = None
    length: Length | None = None

    @property
    def capacity(self) -> dict[str, int]:
        """The bytes of each device that all models may take together; empty without a plan."""
        return {**self.room.gpus, "RAM": self.room.ram} if self.room else {}

    @property
    def placements(self) -> dict[str, Placement]:
        """Each backend's place; empty without a plan."""
        return {one.name: one for one in self.plan.placed} if self.plan else {}


def decide(
    settings: Settings, engine: Engine, devices: Devices, names: Sequence[str], *, ours: Mapping[str, int] | None = None
) -> Decision:
    """What to serve of `names` on these devices. `ours` are bytes by device that our own models hold.

    What "auto" has chosen once it chooses again as long as that fits: another quantisation gives other vectors. The
    longest text, if the user has set none, is that of `fix_length`. `keep` makes both last.
    Raises NotEnoughMemory only where the whole memory of the GPUs would not do: what others hold may come back, and a
    process may get by with less RAM than it asks for. Demo models are not planned: they fit anywhere.
    """
    auto = settings.host.models.quantization == AUTO
    every = tuple(settings.family.weights.models)  # a call for one model gets what a server of all serves
    if settings.host.demo or (request := request_of(settings, engine.flags, every if auto else names)) is None:
        return Decision(settings=_served(settings, None), plan=None)
    whole = request if tuple(request.weights) == every else request_of(settings, engine.flags, every) or request
    devices = _with(devices if request.gpu_layers else replace(devices, gpus=()), ours or {})
    before = choices.quantization(settings.family.name) if auto else None
    if before in {name for names_ in request.ranking for name in names_}:
        again, whole_again = (replace(one, quantization=before) for one in (request, whole))
        with suppress(NotEnoughMemory):
            if (decision := _decided(settings, again, whole_again, devices)).plan:
                return decision
    return _decided(settings, request, whole, devices)


def save_choices(settings: Settings, decision: Decision) -> tuple[str, ...]:
    """Make the next start choose the same; a note where that fails, for it can be served without."""
    auto = settings.host.models.quantization == AUTO
    quantization = decision.plan.quantization if decision.plan and auto else None
    try:
        choices.save(settings.family.name, quantization, decision.length)
    except OSError as error:
        what = f"the choice of {quantization}" if quantization else "the length of the longest text"
        fix = "quantization under [models], and max_input_tokens" if quantization else "max_input_tokens"
        return (f"{what} cannot be kept for the next start ({error}): set {fix}",)
    return ()


def fix_length(request: PlanRequest, devices: Devices, before: Length | None) -> PlanRequest:
    """The request with the longest text decided for good, from the memory there is in all, whoever uses it now.

    What was chosen `before` for the same models and devices stays.
    """
    if request.fixed_tokens:
        return request
    if before and before.holds_for(_models_of(request, request.quantization), _totals(devices)):
        tokens = min(request.tokens, before.max_input_tokens)
    else:
        try:
            tokens = place(request, _lasting(devices)).batch_tokens
        except NotEnoughMemory:
            tokens = min(request.tokens, MIN_TOKENS)
    return replace(request, tokens=tokens, fixed_tokens=True, wanted_tokens=request.tokens)


def _decided(settings: Settings, request: PlanRequest, whole: PlanRequest, devices: Devices) -> Decision:
    """As `decide`; `whole` is the request for all models, for which the length is chosen."""
    length = fix_length(whole, devices, choices.length(settings.family.name))
    decision = plan_for(
        settings, replace(request, tokens=length.tokens, fixed_tokens=True, wanted_tokens=length.wanted_tokens), devices
    )
    if whole.fixed_tokens or decision.plan is None:
        return decision
    served = _models_of(whole, decision.plan.quantization)
    kept = Length(max_input_tokens=length.tokens, served=served, totals=_totals(devices))
    return replace(decision, length=kept)


def _models_of(request: PlanRequest, quantization: str | None) -> str:
    """What of a request decides how long a text may be, in words."""
    turns = f", {' and '.join(sorted(request.on_demand))} on demand" if request.on_demand else ""
    how = f"{'with logits' if request.logits else 'lean'}, {request.gpu_layers} layers on a GPU"
    return f"{', '.join(request.weights)} at {quantization}{turns}, up to {request.tokens} tokens; {how}"


def _totals(devices: Devices) -> dict[str, int]:
    return {one.name: one.total_bytes // MIB for one in (*devices.gpus, devices.ram)}


def _with(devices: Devices, ours: Mapping[str, int]) -> Devices:
    """The devices as they are once our own models let go of them."""
    shared = sum(ours.get(one.name, 0) for one in devices.gpus if one.integrated)

    def freed(one: Device, bytes_: int) -> Device:
        return replace(one, free_bytes=min(one.total_bytes, one.free_bytes + bytes_))

    gpus = tuple(freed(one, ours.get(one.name, 0)) for one in devices.gpus)
    return replace(devices, gpus=gpus, ram=freed(devices.ram, ours.get("RAM", 0) + shared))


def plan_for(settings: Settings, request: PlanRequest, devices: Devices) -> Decision:
    """The plan for what is free, else the one for all that there is, with a warning; see `decide`."""
    on_gpu, room = bool(devices.gpus) and request.gpu_layers > 0, room_of(devices)
    try:
        plan = place(request, room)
    except NotEnoughMemory as error:
        short = str(error)
    else:
        notes = tuple(_notes(settings, request, plan, devices))
        return Decision(settings=_served(settings, plan), plan=plan, notes=notes, room=room)
    whole = DeviceRoom(
        gpus={one.name: one.total_bytes for one in devices.gpus},
        ram=sys.maxsize if on_gpu and not devices.unified else devices.ram.total_bytes,
        unified=devices.unified,
    )
    try:
        plan = place(request, whole)
    except NotEnoughMemory:
        if on_gpu:
            raise
        settings = _with_length(_served(settings, None), request.tokens)
        return Decision(settings=settings, plan=None, notes=(f"memory may run out: {short}",), short=True)
    notes = (f"a model may fail to start: {short}",)
    return Decision(settings=_served(settings, plan), plan=plan, notes=notes, short=True, room=whole)


def _notes(settings: Settings, request: PlanRequest, plan: Plan, devices: Devices) -> Iterator[str]:
    spilt = set(plan.on_demand) - request.on_demand
    if (
        settings.host.models.quantization == AUTO
        or plan.batch_tokens < (request.wanted_tokens or request.tokens)
        or spilt
    ):
        yield _capital("; ".join(plan.reasons))
    if devices.unified and request.gpu_layers:
        yield unified_note(devices)


def unified_note(devices: Devices) -> str:
    """What it means that a GPU has no memory of its own."""
    (gpu,) = devices.gpus
    return f"{gpu.name} ({gpu.description}) computes in the host's own memory: what the models take there is RAM too"


def room_of(devices: Devices) -> DeviceRoom:
    """What of the free memory a plan may take: all but a reserve on each device."""
    ram = _usable(devices.ram.free_bytes)
    gpus = {one.name: _usable(one.free_bytes) for one in devices.gpus}
    return _room(devices, gpus, ram)


def _lasting(devices: Devices) -> DeviceRoom:
    """What can be counted on at any time: the GPUs but for the reserve, and most of RAM, which others use as well."""
    gpus = {one.name: _usable(one.total_bytes) for one in devices.gpus}
    return _room(devices, gpus, round(devices.ram.total_bytes * OURS_OF_RAM))


def _room(devices: Devices, gpus: Mapping[str, int], ram: int) -> DeviceRoom:
    if devices.unified:
        gpus = {name: min(size, ram) for name, size in gpus.items()}
    return DeviceRoom(gpus=gpus, ram=ram, unified=devices.unified)


def _usable(bytes_: int) -> int:
    return max(0, round(bytes_ * (1 - RESERVE_PART)) - RESERVE_BYTES)


def _served(settings: Settings, plan: Plan | None) -> Settings:
    """The settings with the plan's choices in them; without a plan, the family's quantisation for "auto"."""
    host = settings.host
    quantization = plan.quantization if plan else settings.family.weights.quantization
    if host.models.quantization == AUTO:
        settings = settings.with_host(models=host.models.model_copy(update={"quantization": quantization}))
    return _with_length(settings, plan.batch_tokens) if plan else settings


def _with_length(settings: Settings, tokens: int) -> Settings:
    return settings.with_host(max_input_tokens=tokens) if tokens < settings.max_input_tokens else settings


def _capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]
