"""The candidates for a plan, in order of preference. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from launcher.engine.argv import physical_batch
from launcher.planning.memory import Flags, ModelWeights, Need, need
from launcher.planning.packing import Shares, pack, split
from proxy.contract.images import AROUND_IMAGE, IMAGE_TOKENS

MIN_TOKENS = 512  # llama-server's own default; less than a page is of no use


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """What a plan is asked for. `weights` has each backend's file at each quantisation, in the family's order.

    `quantization` None leaves the choice to the plan: the classes in `ranking`, best first; `by_size` says that nothing
    but the files' sizes is known. `fixed_tokens`: the length is not to be changed; `wanted_tokens` is then the length
    hoped for, if it is another. `on_demand`: the backends that the user wants to run on demand. `encoder_bytes`: the
    vision encoder's file, of which each backend has a copy in memory; 0 if images are off.
    """

    weights: Mapping[str, Mapping[str, ModelWeights]]
    ranking: tuple[tuple[str, ...], ...]
    quantization: str | None
    tokens: int
    fixed_tokens: bool
    slots: int
    gpu_layers: int
    logits: bool
    by_size: bool = False
    on_demand: frozenset[str] = frozenset()
    wanted_tokens: int | None = None
    encoder_bytes: int = 0
    flash_attention: bool = True

    @property
    def least_tokens(self) -> int:
        """The shortest length of the longest text that is of use; an image must fit."""
        return IMAGE_TOKENS + AROUND_IMAGE if self.encoder_bytes else MIN_TOKENS

    @property
    def classes(self) -> tuple[tuple[str, ...], ...]:
        return self.ranking if self.quantization is None else ((self.quantization,),)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRoom:
    """The bytes that a plan may use: of each GPU by name, and of RAM. `unified`: GPU and RAM are the same memory."""

    gpus: Mapping[str, int]
    ram: int
    unified: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One way to serve all models: the same quantisation and length for all, and which of them stay loaded."""

    quantization: str
    tokens: int
    resident: tuple[str, ...]
    on_demand: tuple[str, ...]
    split: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedItem:
    """What occupies one place: a backend, or several that take turns in it."""

    names: tuple[str, ...]
    need: Need


def adapt(request: PlanRequest, room: DeviceRoom) -> PlanRequest:
    """The request with `gpu_layers` 0 if there is no GPU."""
    return request if room.gpus else replace(request, gpu_layers=0)


def candidates(request: PlanRequest) -> Iterator[Candidate]:
    """Every candidate, the most preferred first."""
    for quantizations in request.classes:
        for split_up, resident, tokens in product((False, True), _residents(request), _lengths(request)):
            for quantization in quantizations:
                yield Candidate(
                    quantization=quantization,
                    tokens=tokens,
                    resident=resident,
                    on_demand=tuple(name for name in request.weights if name not in resident),
                    split=split_up,
                )


def _residents(request: PlanRequest) -> Iterator[tuple[str, ...]]:
    """Which backends stay loaded: all, then fewer, dropping the family's last first. One alone cannot take turns."""
    always = [name for name in request.weights if name not in request.on_demand]
    for count in range(len(always), -1, -1):
        if count == len(always) or len(request.weights) - count > 1:
            yield tuple(always[:count])


def _lengths(request: PlanRequest) -> tuple[int, ...]:
    """Lengths of the longest text in tokens: as requested, then halved down to the least."""
    found = [request.tokens]
    while not request.fixed_tokens and found[-1] > request.least_tokens:
        found.append(max(request.least_tokens, found[-1] // 2))
    return tuple(found)


def needs_of(request: PlanRequest, candidate: Candidate) -> dict[str, Need]:
    """The memory that each backend needs."""
    flags = Flags(
        batch_tokens=physical_batch(candidate.tokens, request.slots),
        slots=request.slots,
        gpu_layers=request.gpu_layers,
        logits=request.logits,
        encoder_bytes=request.encoder_bytes,
        flash_attention=request.flash_attention,
    )
    return {name: need(files[candidate.quantization], flags) for name, files in request.weights.items()}


def packed_items(request: PlanRequest, candidate: Candidate) -> list[PackedItem]:
    """What is loaded at once: the resident backends, and one place for all that take turns."""
    needs = needs_of(request, candidate)
    items = [PackedItem(names=(name,), need=needs[name]) for name in candidate.resident]
    if turns := candidate.on_demand:
        largest = Need(
            spread=max(needs[name].spread for name in turns),
            fixed=max(needs[name].fixed for name in turns),
            ram=max(needs[name].ram for name in turns),
        )
        items.append(PackedItem(names=turns, need=largest))
    return items


def assign(request: PlanRequest, room: DeviceRoom, candidate: Candidate) -> dict[str, Shares] | None:
    """Each backend's devices, or None if not everything fits; no devices means the CPU."""
    items = packed_items(request, candidate)
    if ram_needed([item.need for item in items], room) > room.ram:
        return None
    shares: Sequence[Shares] | None = [{} for _ in items]
    if request.gpu_layers:
        shares = (split if candidate.split else pack)([item.need for item in items], room.gpus)
    if shares is None:
        return None
    return {name: share for item, share in zip(items, shares, strict=True) for name in item.names}


def ram_needed(needs: Sequence[Need], room: DeviceRoom) -> int:
    """Bytes of RAM, including those of the GPU if they are the same memory."""
    return sum(one.ram + (one.vram if room.unified else 0) for one in needs)
