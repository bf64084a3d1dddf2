"""The ways to serve models in the memory there is, in the order in which they are tried. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from launcher.planning.memory import Flags, ModelWeights, Need, need
from launcher.planning.packing import Shares, pack, split

MIN_TOKENS = 512  # llama-server's own default; shorter than a page is of no use


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """What a plan is asked for. `weights` has each backend's file at each quantisation, in the family's order.

    `quantization` None leaves the choice to the plan: the classes of `quality`, best first. `fixed_tokens`: the length
    is not to be changed; `wanted_tokens` is then the length hoped for, if it is another. `on_demand`: the backends that
    the user wants to run on demand.
    """

    weights: Mapping[str, Mapping[str, ModelWeights]]
    ranking: tuple[tuple[str, ...], ...]
    quantization: str | None
    tokens: int
    fixed_tokens: bool
    gpu_layers: int
    logits: bool
    on_demand: frozenset[str] = frozenset()
    wanted_tokens: int | None = None

    @property
    def classes(self) -> tuple[tuple[str, ...], ...]:
        return self.ranking if self.quantization is None else ((self.quantization,),)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRoom:
    """The bytes that a plan may take: of each GPU by its name, and of RAM. `unified`: the GPU's are RAM's too."""

    gpus: Mapping[str, int]
    ram: int
    unified: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One way."""

    quantization: str
    tokens: int
    resident: tuple[str, ...]
    on_demand: tuple[str, ...]
    split: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedItem:
    """What is loaded at once in one place: a backend, or those that take turns."""

    names: tuple[str, ...]
    need: Need


def adapt(request: PlanRequest, room: DeviceRoom) -> PlanRequest:
    """Without a GPU nothing goes to one."""
    return request if room.gpus else replace(request, gpu_layers=0)


def candidates(request: PlanRequest) -> Iterator[Candidate]:
    """Every way, the one to be preferred first."""
    for quantizations in request.classes:
        for divided, resident, tokens in product((False, True), _residents(request), _lengths(request)):
            for quantization in quantizations:
                yield Candidate(
                    quantization=quantization,
                    tokens=tokens,
                    resident=resident,
                    on_demand=tuple(name for name in request.weights if name not in resident),
                    split=divided,
                )


def _residents(request: PlanRequest) -> Iterator[tuple[str, ...]]:
    """Who stays loaded, most first; the family's first the longest. One alone gains nothing by taking turns."""
    always = [name for name in request.weights if name not in request.on_demand]
    for kept in range(len(always), -1, -1):
        if kept == len(always) or len(request.weights) - kept > 1:
            yield tuple(always[:kept])


def _lengths(request: PlanRequest) -> tuple[int, ...]:
    """The longest text, in tokens: as wished, then halves of it down to MIN_TOKENS."""
    found = [request.tokens]
    while not request.fixed_tokens and found[-1] > MIN_TOKENS:
        found.append(max(MIN_TOKENS, found[-1] // 2))
    return tuple(found)


def needs_of(request: PlanRequest, candidate: Candidate) -> dict[str, Need]:
    """What each backend takes."""
    flags = Flags(batch_tokens=candidate.tokens, gpu_layers=request.gpu_layers, logits=request.logits)
    return {name: need(files[candidate.quantization], flags) for name, files in request.weights.items()}


def items_of(request: PlanRequest, candidate: Candidate) -> list[PackedItem]:
    """What is loaded at once."""
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
    """Each backend's devices, if all fits; no devices where there is no GPU to use."""
    items = items_of(request, candidate)
    if ram_needed([item.need for item in items], room) > room.ram:
        return None
    shares: Sequence[Shares] | None = [{} for _ in items]
    if request.gpu_layers:
        shares = (split if candidate.split else pack)([item.need for item in items], room.gpus)
    if shares is None:
        return None
    return {name: share for item, share in zip(items, shares, strict=True) for name in item.names}


def ram_needed(needs: Sequence[Need], room: DeviceRoom) -> int:
    """Bytes of RAM, with those of the GPU where they are the same memory."""
    return sum(one.ram + (one.vram if room.unified else 0) for one in needs)
