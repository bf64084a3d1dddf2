"""Bounds the bytes held for clients: of requests that arrive, wait and are computed, and of their answers."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from proxy.errors import Crowded
from proxy.types import MIN_RETRY_AFTER_S

_SMALL = 256  # a request of at most one part in so many of the budget is small
LARGE_SHARE = 3 / 4  # of the budget, for large ones: a short text finds room beside all bulk


class BodyTransfer(Protocol):
    """A body or an answer on its way, as the budget sees it."""

    @property
    def slow(self) -> bool:
        """Whether its client has had time enough, and did not use it."""

    def give_up(self) -> None:
        """End it: its memory goes to another."""


@dataclass(slots=True)
class MemoryBudget:
    """The bytes for all clients together. When they run out, slow transfers lose theirs first.

    `retry_after_s` says when what is refused now may find room.
    """

    total: int
    retry_after_s: Callable[[], int] = lambda: MIN_RETRY_AFTER_S
    held: int = 0
    transfers: dict["Reservation", BodyTransfer] = field(default_factory=dict)

    @contextmanager
    def room(self) -> Iterator["Reservation"]:
        """One request's reservation, of no bytes yet, until the block ends."""
        reservation = Reservation(self)
        try:
            yield reservation
        finally:
            reservation.close()

    def take(self, size: int, *, within: float) -> bool:
        """Take that many more bytes, if need be from slow transfers; False if there are not enough."""
        for reservation, transfer in list(self.transfers.items()):
            if self.held + size <= within:
                break
            if transfer.slow:
                transfer.give_up()
                reservation.close()
        if self.held + size > within:
            return False
        self.held += size
        return True


@dataclass(slots=True, eq=False)
class Reservation:
    """The bytes that one request holds."""

    budget: MemoryBudget
    size: int = 0

    def grow(self, size: int) -> None:
        """Take that many more bytes. Raises Crowded if there are not enough."""
        budget = self.budget
        small = self.size + size <= budget.total // _SMALL
        if not budget.take(size, within=budget.total if small else budget.total * LARGE_SHARE):
            raise Crowded(
                f"{budget.held} bytes are held for clients already: send this again later, or fewer at a time",
                retry_after_s=budget.retry_after_s(),
            )
        self.size += size

    def close(self) -> None:
        """Give all of them back."""
        self.budget.held -= self.size
        self.size = 0

    def moved(self) -> "Reservation":
        """Move the bytes to a reservation of their own, which outlives this one."""
        other = Reservation(self.budget, self.size)
        self.size = 0
        return other

    @contextmanager
    def used_by(self, transfer: BodyTransfer) -> Iterator[None]:
        """During the block these bytes may be lost if the transfer is slow."""
        self.budget.transfers[self] = transfer
        try:
            yield
        finally:
            del self.budget.transfers[self]
