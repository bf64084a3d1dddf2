"""Where the time of a request went, as its queues note it."""

import math
from dataclasses import dataclass


@dataclass(slots=True)
class Timing:
    """When the first text of a request came into a queue, when the first was sent, and when the last was done.

    In the loop's time. What was answered from the cache was never in a queue. `backend` and `interactive`: whose queue
    it was, and in which lane.
    """

    arrived: float = math.inf
    sent: float = math.inf
    done: float = -math.inf
    backend: str = ""
    interactive: bool = False

    def note(self, arrived: float, sent: float | None, done: float) -> None:
        """One queue is done with its part; `sent` is None for texts that were in flight for others already."""
        self.arrived = min(self.arrived, arrived)
        self.sent = min(self.sent, arrived if sent is None else sent)
        self.done = max(self.done, done)

    @property
    def computed(self) -> bool:
        """Whether a queue has computed something of it."""
        return self.done > self.arrived

    @property
    def wait_s(self) -> float:
        """How long no text of the request had been sent."""
        return max(0.0, self.sent - self.arrived) if self.computed else 0.0

    @property
    def compute_s(self) -> float:
        """How long from the first text that was sent to the last vector."""
        return max(0.0, self.done - self.sent) if self.computed else 0.0
