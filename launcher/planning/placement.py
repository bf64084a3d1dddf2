"""Chooses quantisation, length and the place of each model, or raises NotEnoughMemory with the numbers. Pure.

What is given up, in this order, until everything fits: nothing; the length of texts, by halves down to MIN_TOKENS;
models that stay loaded; whole models on one card; and last, quality beyond the noise of the published figures. So more
memory never gives worse quality, and the user's settings are never changed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from launcher.errors import NotEnoughMemory
from launcher.planning.candidates import Candidate, DeviceRoom, PlanRequest, adapt, assign, candidates, needs_of
from launcher.planning.memory import Need
from launcher.planning.packing import Shares
from launcher.planning.shortage import explain_shortage


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """One backend's place: no devices means host RAM; several mean a share of the model on each (`tensor_split`).

    Backends that are `on_demand` share one place: only one of them is loaded at a time.
    """

    name: str
    devices: tuple[str, ...]
    tensor_split: tuple[float, ...]
    on_demand: bool
    need: Need


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A complete plan, with one quantisation and length for all models. `reasons` are clauses for the user."""

    quantization: str
    batch_tokens: int
    placed: tuple[Placement, ...]
    reasons: tuple[str, ...]

    @property
    def on_demand(self) -> tuple[str, ...]:
        return tuple(one.name for one in self.placed if one.on_demand)


def place(request: PlanRequest, room: DeviceRoom) -> Plan:
    """The first candidate that fits. Raises NotEnoughMemory saying what is needed, and what would fit."""
    request = adapt(request, room)
    for candidate in candidates(request):
        shares = assign(request, room, candidate)
        if shares is not None:
            return _plan(request, candidate, shares)
    raise NotEnoughMemory(explain_shortage(request, room))


def _plan(request: PlanRequest, candidate: Candidate, shares: Mapping[str, Shares]) -> Plan:
    needs = needs_of(request, candidate)
    placed = tuple(
        Placement(
            name=name,
            devices=tuple(shares[name]),
            tensor_split=tuple(shares[name].values()) if len(shares[name]) > 1 else (),
            on_demand=name in candidate.on_demand,
            need=needs[name],
        )
        for name in request.weights
    )
    return Plan(
        quantization=candidate.quantization,
        batch_tokens=candidate.tokens,
        placed=placed,
        reasons=tuple(_reasons(request, candidate)),
    )


def _reasons(request: PlanRequest, chosen: Candidate) -> Iterator[str]:
    if request.quantization is not None:
        yield f"{chosen.quantization} is set"
    elif request.by_size:
        yield f"{chosen.quantization} is the largest file that fits: there are no published figures of these models"
    elif chosen.quantization in request.classes[0]:
        yield f"{chosen.quantization} has the best published quality, within noise, of what fits"
    else:
        yield f"{chosen.quantization} is worse than others by its published NDCG@5, but none of those fits"
    if chosen.tokens < (wanted := request.wanted_tokens or request.tokens):
        yield f"the longest text is {chosen.tokens} tokens: with {wanted} it does not fit"
    if set(chosen.on_demand) - request.on_demand:
        turns = " and ".join(chosen.on_demand)
        yield f"{turns} take turns in one place, each loaded on demand: together they do not fit"
    if chosen.split:
        yield "each model is split over several GPUs: none of them can hold a whole model"
