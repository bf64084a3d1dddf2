"""Needs → GPUs. Pure. `rooms` has the bytes that may be taken of each device."""

from collections.abc import Mapping, Sequence
from itertools import product

from launcher.memory import Need

SPLIT_MARGIN = 0.1  # of a model, on each card: layers are not divided, and the last card gets the output matrix too

Shares = Mapping[str, float]  # by device: the part of a model that lies there; together 1


def whole(needs: Sequence[Need], rooms: Mapping[str, int]) -> list[Shares] | None:
    """Each need on one card, so that the fullest card keeps as much room as can be; None if there is no way.

    Every way is tried, so a way that there is is found.
    """
    roomiest = sorted(rooms, key=lambda name: -rooms[name])[: len(needs)]  # another card is of no more use than these
    best: tuple[str, ...] | None = None
    best_left = [0]  # less than nothing left on a card is no way
    for chosen in product(roomiest, repeat=len(needs)):
        left = {name: rooms[name] for name in roomiest}
        for one, name in zip(needs, chosen, strict=True):
            left[name] -= one.vram
        ranked = sorted(left.values())
        if ranked >= best_left and (best is None or ranked > best_left):
            best, best_left = chosen, ranked
    return None if best is None else [{name: 1.0} for name in best]


def split(needs: Sequence[Need], rooms: Mapping[str, int]) -> list[Shares] | None:
    """Every need over all cards that can hold what each of them needs, by the room left there; None if they cannot."""
    fixed = sum(round(one.fixed + SPLIT_MARGIN * one.spread) for one in needs)
    left = {name: room - fixed for name, room in rooms.items() if room > fixed}
    if len(left) < 2 or sum(left.values()) < sum(one.spread for one in needs):
        return None
    shares = {name: room / sum(left.values()) for name, room in left.items()}
    return [shares for _ in needs]
