"""Says how much memory is missing, and what would help. Pure."""

from dataclasses import replace

from launcher.engine.device_list import MIB
from launcher.planning.candidates import (
    Candidate,
    DeviceRoom,
    PlanRequest,
    adapt,
    assign,
    candidates,
    packed_items,
    ram_needed,
)
from launcher.planning.memory import GIB
from launcher.planning.packing import overflow


def missing_bytes(request: PlanRequest, room: DeviceRoom, quantization: str) -> int:
    """Bytes missing for all models at once at that quantisation and the requested length; 0 if they fit."""
    request = adapt(request, room)
    names = tuple(request.weights)
    candidate = Candidate(quantization=quantization, tokens=request.tokens, resident=names, on_demand=(), split=False)
    return _missing(request, room, candidate)


def readable_size(bytes_: int) -> str:
    """A size for people to read; never 0 unless it is 0."""
    return f"{bytes_ / GIB:.1f} GiB" if bytes_ >= GIB else f"{-(-bytes_ // MIB)} MiB"


def explain_shortage(request: PlanRequest, room: DeviceRoom) -> str:
    """Why nothing fits, with the numbers and what would help."""
    smallest = min(candidates(request), key=lambda one: _total(request, one))
    vram, ram = _total(request, smallest)
    what = f"{', '.join(request.weights)} at {smallest.quantization} with texts of up to {smallest.tokens} tokens"
    turns = ", loaded one at a time," if len(smallest.on_demand) > 1 else ""
    takes = " and ".join([f"{vram / GIB:.1f} GiB of VRAM"] * bool(vram) + [f"{ram / GIB:.1f} GiB of RAM"])
    gpus = room.gpus if request.gpu_layers else {}
    available = ", ".join(f"{name} {size / GIB:.1f} GiB" for name, size in {**gpus, "RAM": room.ram}.items())
    shortage = readable_size(_missing(request, room, replace(smallest, split=False)))
    return (
        f"{what}{turns} take {takes}, but available are {available}; {shortage} are missing: {_advice(request, room)}"
    )


def _missing(request: PlanRequest, room: DeviceRoom, candidate: Candidate) -> int:
    needs = [item.need for item in packed_items(request, candidate)]
    return max(0, ram_needed(needs, room) - room.ram, overflow(needs, room.gpus) if request.gpu_layers else 0)


def _total(request: PlanRequest, candidate: Candidate) -> tuple[int, int]:
    needs = [item.need for item in packed_items(request, candidate)]
    return sum(one.vram for one in needs), sum(one.ram for one in needs)


def _advice(request: PlanRequest, room: DeviceRoom) -> str:
    """Which of their own settings the user may change so that it fits."""
    relaxed = (
        replace(request, fixed_tokens=False),
        replace(request, quantization=None),
        replace(request, fixed_tokens=False, quantization=None),
    )
    for other in relaxed:
        for candidate in candidates(other):
            if assign(other, room, candidate) is not None:
                shorter = candidate.tokens != request.tokens
                changes = [f"max_input_tokens = {candidate.tokens}"] * shorter
                changes += [f'quantization = "{candidate.quantization}"'] * (other.quantization is None)
                return f"set {' and '.join(changes)}, which would fit"
    return (
        "use a larger GPU, or free memory that other programs hold"
        if request.gpu_layers
        else "use a machine with more memory"
    )
