"""Assigns needs to GPUs. Pure. `rooms` has the usable bytes of each device."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import product

from launcher.planning.memory import Need

SPLIT_MARGIN = 0.1  # of a model, on each card: layers are not divided, and the last card also gets the output matrix
_ALIKE = 1.1  # assignments that differ by less count as equally fast

Shares = Mapping[str, float]  # by device: its share of a model; they sum to 1


def pack(needs: Sequence[Need], rooms: Mapping[str, int]) -> list[Shares] | None:
    """Assign each need to one card; None if impossible. Tries every assignment, so one that exists is found.

    Prefers the fastest that fits: models on one card compute in turn, and a card's room stands for its speed, of which
    nothing else is known. Of equally fast ones, the one that uses most cards and leaves most room on the fullest card.
    """
    fitting = [way for way in _assignments(needs, rooms) if min(_left(needs, rooms, way).values(), default=0) >= 0]
    if not fitting:
        return None
    fastest = min(_slowest(rooms, way) for way in fitting)
    good = [way for way in fitting if _slowest(rooms, way) <= fastest * _ALIKE]
    best = max(good, key=lambda way: (len(set(way)), sorted(_left(needs, rooms, way).values())))
    return [{name: 1.0} for name in best]


def overflow(needs: Sequence[Need], rooms: Mapping[str, int]) -> int:
    """The least bytes by which all cards together fall short of `pack`; 0 if it fits."""
    shortages = (-sum(min(0, left) for left in _left(needs, rooms, way).values()) for way in _assignments(needs, rooms))
    return min(shortages, default=sum(one.vram for one in needs))


def _assignments(needs: Sequence[Need], rooms: Mapping[str, int]) -> Iterator[tuple[str, ...]]:
    """Every useful assignment of needs to cards; only as many of the roomiest cards as there are needs can matter."""
    roomiest = sorted(rooms, key=lambda name: -rooms[name])[: len(needs)]
    return product(roomiest, repeat=len(needs))


def _left(needs: Sequence[Need], rooms: Mapping[str, int], way: Sequence[str]) -> dict[str, int]:
    left = {name: rooms[name] for name in sorted(rooms, key=lambda name: -rooms[name])[: len(needs)]}
    for one, name in zip(needs, way, strict=True):
        left[name] -= one.vram
    return left


def _slowest(rooms: Mapping[str, int], way: Sequence[str]) -> float:
    """The time of the slowest card for its models, in arbitrary units."""
    return max((count / max(1, rooms[name]) for name, count in Counter(way).items()), default=0.0)


def split(needs: Sequence[Need], rooms: Mapping[str, int]) -> list[Shares] | None:
    """Split every need over all cards that can hold the fixed parts, by the room left there; None if impossible."""
    fixed = sum(round(one.fixed + SPLIT_MARGIN * one.spread) for one in needs)
    left = {name: room - fixed for name, room in rooms.items() if room > fixed}
    if len(left) < 2 or sum(left.values()) < sum(one.spread for one in needs):
        return None
    shares = {name: room / sum(left.values()) for name, room in left.items()}
    return [shares for _ in needs]
