"""How many bytes are held for clients at a time: of requests that arrive, wait and are computed, of their answers."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from proxy.errors import Crowded

SMALL = 256  # a request of no more than this part of the budget is small
LARGE_SHARE = 3 / 4  # what large ones may fill: a short text finds room beside everybody's bulk
RETRY_AFTER_S = 2


class BodyTransfer(Protocol):
    """A body or an answer on its way, as the budget sees it."""

    @property
    def slow(self) -> bool:
        """Whether its client has had time, and used it badly."""

    def give_up(self) -> None:
        """End it: its room goes to another."""


@dataclass(slots=True)
class MemoryBudget:
    """Bytes for all clients together. Where they are lacking, those that send or read slowly lose their room first."""

    total: int
    held: int = 0
    transfers: dict["Reservation", BodyTransfer] = field(default_factory=dict)

    @contextmanager
    def room(self) -> Iterator["Reservation"]:
        """One request's room, empty, until the block ends."""
        room = Reservation(self)
        try:
            yield room
        finally:
            room.close()

    def take(self, size: int, *, within: float) -> bool:
        """Whether that many bytes more were to be had, if need be from those that are slow."""
        for room, transfer in list(self.transfers.items()):
            if self.held + size <= within:
                break
            if transfer.slow:
                transfer.give_up()
                room.close()
        if self.held + size > within:
            return False
        self.held += size
        return True


@dataclass(slots=True, eq=False)
class Reservation:
    """What one request holds of the budget."""

    budget: MemoryBudget
    size: int = 0

    def grow(self, size: int) -> None:
        """Take that many bytes more. Raises Crowded if they are not there."""
        budget = self.budget
        small = self.size + size <= budget.total // SMALL
        if not budget.take(size, within=budget.total if small else budget.total * LARGE_SHARE):
            raise Crowded(
                f"{budget.held} bytes are held for clients already: send this again later, or fewer at a time",
                retry_after_s=RETRY_AFTER_S,
            )
        self.size += size

    def close(self) -> None:
        """Give all of it back."""
        self.budget.held -= self.size
        self.size = 0

    def moved(self) -> "Reservation":
        """The same bytes in a room of their own, which outlives this one."""
        other = Reservation(self.budget, self.size)
        self.size = 0
        return other

    @contextmanager
    def used_by(self, transfer: BodyTransfer) -> Iterator[None]:
        """For the block this room may be lost if the transfer is slow."""
        self.budget.transfers[self] = transfer
        try:
            yield
        finally:
            del self.budget.transfers[self]
