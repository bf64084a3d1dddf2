"""Needs → GPUs. Pure. `rooms` has the bytes that may be taken of each device."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import product

from launcher.planning.memory import Need

SPLIT_MARGIN = 0.1  # of a model, on each card: layers are not divided, and the last card gets the output matrix too
ALIKE = 1.1  # ways that differ by less are equally quick, as far as one can tell

Shares = Mapping[str, float]  # by device: the part of a model that lies there; together 1


def pack(needs: Sequence[Need], rooms: Mapping[str, int]) -> list[Shares] | None:
    """Each need on one card; None if there is no way. Every way is tried, so a way that there is is found.

    Of the ways that fit it is one that uses the cards best: models on one card compute in turn, and the room of a card
    stands for its speed, of which nothing else is known. Of those the one that uses most cards, and whose fullest
    card keeps as much room as can be.
    """
    fitting = [way for way in _ways(needs, rooms) if min(_left(needs, rooms, way).values(), default=0) >= 0]
    if not fitting:
        return None
    quickest = min(_turns(rooms, way) for way in fitting)
    good = [way for way in fitting if _turns(rooms, way) <= quickest * ALIKE]
    best = max(good, key=lambda way: (len(set(way)), sorted(_left(needs, rooms, way).values())))
    return [{name: 1.0} for name in best]


def overflow(needs: Sequence[Need], rooms: Mapping[str, int]) -> int:
    """The bytes that all cards together lack for `pack`, at the least; 0: it fits."""
    lacks = (-sum(min(0, left) for left in _left(needs, rooms, way).values()) for way in _ways(needs, rooms))
    return min(lacks, default=sum(one.vram for one in needs))


def _ways(needs: Sequence[Need], rooms: Mapping[str, int]) -> Iterator[tuple[str, ...]]:
    """The card of each need, in every way that can matter: other cards are of no more use than the roomiest."""
    roomiest = sorted(rooms, key=lambda name: -rooms[name])[: len(needs)]
    return product(roomiest, repeat=len(needs))


def _left(needs: Sequence[Need], rooms: Mapping[str, int], way: Sequence[str]) -> dict[str, int]:
    left = {name: rooms[name] for name in sorted(rooms, key=lambda name: -rooms[name])[: len(needs)]}
    for one, name in zip(needs, way, strict=True):
        left[name] -= one.vram
    return left


def _turns(rooms: Mapping[str, int], way: Sequence[str]) -> float:
    """How long the slowest card takes for its models, in no unit."""
    return max((count / max(1, rooms[name]) for name, count in Counter(way).items()), default=0.0)


def split(needs: Sequence[Need], rooms: Mapping[str, int]) -> list[Shares] | None:
    """Every need over all cards that can hold what each of them needs, by the room left there; None if they cannot."""
    fixed = sum(round(one.fixed + SPLIT_MARGIN * one.spread) for one in needs)
    left = {name: room - fixed for name, room in rooms.items() if room > fixed}
    if len(left) < 2 or sum(left.values()) < sum(one.spread for one in needs):
        return None
    shares = {name: room / sum(left.values()) for name, room in left.items()}
    return [shares for _ in needs]
