"""Requests on their way to a line: estimated before any work, so that a flood is refused at the door."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from proxy.scheduling.dispatcher import Dispatcher
from proxy.types import Input

CHARACTERS_PER_TOKEN = 4  # about, in prose; it is counted exactly later
FORGET = 0.99  # of what was counted is kept at the next request, so that some hundred count


class Admission:
    """`coming` is how many tokens, about, of requests that are not in line yet; `requests` is how many were admitted.

    Estimates are corrected by what was counted lately: other languages have other numbers of characters in a token.
    """

    def __init__(self, lane: Dispatcher) -> None:
        self.coming = 0
        self.requests = 0
        self._lane = lane
        self._estimated = self._counted = 0.0

    @contextmanager
    def admitted(self, estimated: int) -> Iterator[None]:
        """A request until it is in line. Raises Overloaded before any work if too much waits already."""
        tokens = round(estimated * self._counted / self._estimated) if self._estimated else estimated
        queued = self._lane.line.tokens + self.coming
        if queued and queued + tokens > self._lane.line.max_tokens:
            raise self._lane.overloaded(tokens, self.coming)
        self.requests += 1
        self.coming += tokens
        try:
            yield
        finally:
            self.coming -= tokens

    def counted(self, estimated: int, tokens: int) -> None:
        """What was estimated so has so many."""
        self._estimated = FORGET * self._estimated + estimated
        self._counted = FORGET * self._counted + tokens


def estimate(inputs: Sequence[Input]) -> int:
    """About how many tokens these are, for next to nothing: enough to turn a flood away before any work."""
    return sum(len(one) // CHARACTERS_PER_TOKEN if isinstance(one, str) else len(one) for one in inputs) + len(inputs)
