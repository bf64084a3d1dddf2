"""Which backends on demand start, and which are evicted for them. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

Memory = Mapping[str, int]  # bytes by device

MIN_RESIDENT_S = 30.0  # a backend in use is evicted only after this time: loading a model takes seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Resident:
    """One backend as the decision sees it: `resident` means that it has its memory, `used` that it has requests.

    `idle_s` is the time since it was last used, `up_s` since it became ready; `idle_limit_s` is None for one that
    always runs.
    """

    name: str
    resident: bool
    used: bool
    idle_s: float
    up_s: float
    memory: Memory
    idle_limit_s: float | None

    @property
    def wanted(self) -> bool:
        """Whether it sleeps and has requests."""
        return self.used and not self.resident


@dataclass(frozen=True, slots=True)
class Eviction:
    """Names to start now, and names to put to sleep. A backend that needs their room starts once it is free."""

    wake: tuple[str, ...]
    sleep: tuple[str, ...]


def plan_eviction(backends: Sequence[Resident], capacity: Memory) -> Eviction:
    """Start requested models that fit; otherwise evict the least recently used ones, idle ones first.

    One in use is evicted only after MIN_RESIDENT_S. One that has been idle for its limit sleeps too. `capacity` is the
    bytes that all backends may have together on each device; a device that it does not name has no limit.
    """
    residents = [one for one in backends if one.resident]
    wake: list[str] = []
    sleep = {one.name for one in residents if one.idle_limit_s is not None and _idle(one)}
    for one in backends:
        if not one.wanted:
            continue
        woken = [other for other in backends if other.name in wake]
        if _fits(one, [*residents, *woken], capacity):
            wake.append(one.name)
        else:
            sleep |= set(_evicted_for(one, residents, woken, capacity))
    return Eviction(tuple(wake), tuple(name for name in (one.name for one in residents) if name in sleep))


def _idle(one: Resident) -> bool:
    return one.idle_limit_s is not None and not one.used and min(one.idle_s, one.up_s) >= one.idle_limit_s


def _evicted_for(
    one: Resident, residents: Sequence[Resident], woken: Sequence[Resident], capacity: Memory
) -> Iterator[str]:
    """The fewest backends, least recently used first, whose eviction makes room; none if even all of them do not."""
    movable = [other for other in residents if other.idle_limit_s is not None]
    movable = [other for other in movable if not other.used or other.up_s >= MIN_RESIDENT_S]
    movable.sort(key=lambda other: (other.used, -other.idle_s))
    for count in range(1, len(movable) + 1):
        leaving = {other.name for other in movable[:count]}
        if _fits(one, [*(other for other in residents if other.name not in leaving), *woken], capacity):
            return iter(leaving)
    return iter(())


def _fits(one: Resident, others: Sequence[Resident], capacity: Memory) -> bool:
    return all(
        need + sum(other.memory.get(device, 0) for other in others) <= capacity.get(device, need + 2**63)
        for device, need in one.memory.items()
    )
