"""Memory + models → placements and quantisation, or NotEnoughMemory with the numbers. Pure.

What is given up, in this order, until all fits: nothing; the length of texts, by halves down to MIN_TOKENS; models
that stay loaded; whole models on one card; and last of all quality beyond the noise of what was published. So more
memory never gives worse quality, and what the user has set is never changed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from launcher.errors import NotEnoughMemory
from launcher.memory import GIB, Flags, Need, Weights, need
from launcher.packing import Shares, split, whole

MIN_TOKENS = 512  # llama-server's own default; shorter than a page is of no use


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is to be served. `weights` has each backend's file at each quantisation, in the family's order.

    `quantization` None leaves it to us: the classes of `ranking` (launcher.ranking), best first. `fixed_tokens`: the
    user has set the length himself, and it stays. `on_demand`: so do these backends, by the user's word.
    """

    weights: Mapping[str, Mapping[str, Weights]]
    ranking: tuple[tuple[str, ...], ...]
    quantization: str | None
    tokens: int
    fixed_tokens: bool
    gpu_layers: int
    logits: bool
    on_demand: frozenset[str] = frozenset()

    @property
    def classes(self) -> tuple[tuple[str, ...], ...]:
        return self.ranking if self.quantization is None else ((self.quantization,),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """The bytes that a plan may take: of each GPU by its name, and of RAM."""

    gpus: Mapping[str, int]
    ram: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """One backend's place: no devices means host RAM, several a share of the model on each (`tensor_split`).

    Those that are `on_demand` share one place: one of them is loaded at a time.
    """

    name: str
    devices: tuple[str, ...]
    tensor_split: tuple[float, ...]
    on_demand: bool
    need: Need


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A whole answer, the same quantisation and length for all. `reasons`: why, a sentence each."""

    quantization: str
    batch_tokens: int
    placed: tuple[Placed, ...]
    reasons: tuple[str, ...]

    @property
    def on_demand(self) -> tuple[str, ...]:
        return tuple(one.name for one in self.placed if one.on_demand)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    quantization: str
    tokens: int
    resident: tuple[str, ...]
    on_demand: tuple[str, ...]
    split: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Item:
    """What is loaded at once in one place: a backend, or those that take turns."""

    names: tuple[str, ...]
    need: Need


def place(wish: Wish, room: Room) -> Plan:
    """The first way to serve that fits. Raises NotEnoughMemory saying what is needed and would fit."""
    wish = _possible(wish, room)
    for candidate in _candidates(wish):
        shares = _assigned(wish, room, candidate)
        if shares is not None:
            return _plan(wish, candidate, shares)
    raise NotEnoughMemory(_refusal(wish, room))


def missing(wish: Wish, room: Room, quantization: str) -> int:
    """Bytes that lack for all models at once at that quantisation with texts as long as wished; 0: it fits."""
    wish = _possible(wish, room)
    names = tuple(wish.weights)
    candidate = _Candidate(quantization=quantization, tokens=wish.tokens, resident=names, on_demand=(), split=False)
    if _assigned(wish, room, candidate) is not None:
        return 0
    needs = [item.need for item in _items(wish, candidate)]
    rooms = list(room.gpus.values()) or [0]
    host = sum(one.ram for one in needs) - room.ram
    together = sum(one.vram for one in needs) - sum(rooms)
    one_too_large = max(one.vram for one in needs) - max(rooms)
    return max(1, host, together, one_too_large)


def _possible(wish: Wish, room: Room) -> Wish:
    return wish if room.gpus else replace(wish, gpu_layers=0)


def _candidates(wish: Wish) -> Iterator[_Candidate]:
    for quantizations in wish.classes:
        for divided, resident, tokens in product((False, True), _residents(wish), _lengths(wish)):
            for quantization in quantizations:
                yield _Candidate(
                    quantization=quantization,
                    tokens=tokens,
                    resident=resident,
                    on_demand=tuple(name for name in wish.weights if name not in resident),
                    split=divided,
                )


def _residents(wish: Wish) -> Iterator[tuple[str, ...]]:
    """Who stays loaded, most first; the family's first the longest. One alone gains nothing by taking turns."""
    always = [name for name in wish.weights if name not in wish.on_demand]
    for kept in range(len(always), -1, -1):
        if kept == len(always) or len(wish.weights) - kept > 1:
            yield tuple(always[:kept])


def _lengths(wish: Wish) -> tuple[int, ...]:
    """The longest text, in tokens: as wished, then halves of it down to MIN_TOKENS."""
    found = [wish.tokens]
    while not wish.fixed_tokens and found[-1] > MIN_TOKENS:
        found.append(max(MIN_TOKENS, found[-1] // 2))
    return tuple(found)


def _needs(wish: Wish, candidate: _Candidate) -> dict[str, Need]:
    flags = Flags(batch_tokens=candidate.tokens, gpu_layers=wish.gpu_layers, logits=wish.logits)
    return {name: need(files[candidate.quantization], flags) for name, files in wish.weights.items()}


def _items(wish: Wish, candidate: _Candidate) -> list[_Item]:
    needs = _needs(wish, candidate)
    items = [_Item(names=(name,), need=needs[name]) for name in candidate.resident]
    if turns := candidate.on_demand:
        largest = Need(
            spread=max(needs[name].spread for name in turns),
            fixed=max(needs[name].fixed for name in turns),
            ram=max(needs[name].ram for name in turns),
        )
        items.append(_Item(names=turns, need=largest))
    return items


def _assigned(wish: Wish, room: Room, candidate: _Candidate) -> dict[str, Shares] | None:
    """Each backend's devices, if all fits; no devices where there is no GPU to use."""
    items = _items(wish, candidate)
    if sum(item.need.ram for item in items) > room.ram:
        return None
    shares: Sequence[Shares] | None = [{} for _ in items]
    if wish.gpu_layers:
        shares = (split if candidate.split else whole)([item.need for item in items], room.gpus)
    if shares is None:
        return None
    return {name: share for item, share in zip(items, shares, strict=True) for name in item.names}


def _plan(wish: Wish, candidate: _Candidate, shares: Mapping[str, Shares]) -> Plan:
    needs = _needs(wish, candidate)
    placed = tuple(
        Placed(
            name=name,
            devices=tuple(shares[name]),
            tensor_split=tuple(shares[name].values()) if len(shares[name]) > 1 else (),
            on_demand=name in candidate.on_demand,
            need=needs[name],
        )
        for name in wish.weights
    )
    return Plan(
        quantization=candidate.quantization,
        batch_tokens=candidate.tokens,
        placed=placed,
        reasons=tuple(_reasons(wish, candidate)),
    )


def _reasons(wish: Wish, chosen: _Candidate) -> Iterator[str]:
    if wish.quantization is not None:
        yield f"{chosen.quantization} is set"
    elif chosen.quantization in wish.classes[0]:
        yield f"{chosen.quantization} has the best published quality, within noise, of what fits"
    else:
        yield f"{chosen.quantization} is worse than others by its published NDCG@5, but none of those fits"
    if chosen.tokens < wish.tokens:
        yield f"the longest text is {chosen.tokens} tokens: with {wish.tokens} it does not fit"
    if set(chosen.on_demand) - wish.on_demand:
        turns = " and ".join(chosen.on_demand)
        yield f"{turns} take turns in one place, each loaded when it is asked for: together they do not fit"
    if chosen.split:
        yield "each model is split over several GPUs: none of them can hold a whole one"


def _refusal(wish: Wish, room: Room) -> str:
    smallest = min(_candidates(wish), key=lambda one: _total(wish, one))
    vram, ram = _total(wish, smallest)
    what = f"{', '.join(wish.weights)} at {smallest.quantization} with texts of up to {smallest.tokens} tokens"
    turns = ", loaded one at a time," if len(smallest.on_demand) > 1 else ""
    takes = " and ".join([f"{vram / GIB:.1f} GiB of VRAM"] * bool(vram) + [f"{ram / GIB:.1f} GiB of RAM"])
    gpus = room.gpus if wish.gpu_layers else {}
    there = ", ".join(f"{name} {size / GIB:.1f} GiB" for name, size in {**gpus, "RAM": room.ram}.items())
    return f"{what}{turns} take {takes}, and there is for use: {there}; {_advice(wish, room)}"


def _total(wish: Wish, candidate: _Candidate) -> tuple[int, int]:
    needs = [item.need for item in _items(wish, candidate)]
    return sum(one.vram for one in needs), sum(one.ram for one in needs)


def _advice(wish: Wish, room: Room) -> str:
    """What the user may change of his own settings so that it fits."""
    freed = (
        replace(wish, fixed_tokens=False),
        replace(wish, quantization=None),
        replace(wish, fixed_tokens=False, quantization=None),
    )
    for other in freed:
        for candidate in _candidates(other):
            if _assigned(other, room, candidate) is not None:
                shorter = candidate.tokens != wish.tokens
                changes = [f"max_input_tokens = {candidate.tokens}"] * shorter
                changes += [f'quantization = "{candidate.quantization}"'] * (other.quantization is None)
                return f"set {' and '.join(changes)}, which would fit"
    return "use a larger GPU, or free memory that others hold" if wish.gpu_layers else "use a machine with more memory"
