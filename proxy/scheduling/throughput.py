"""Estimates how fast a backend is, from its latest batches, and when rejected requests should be sent again."""

import math
from dataclasses import dataclass, field

_DECAY = 0.9  # weight that earlier batches keep at each new one, so that about twenty count
GUESS = 1000.0  # tokens per second of an unknown backend
LONGEST_RETRY_S = 600
# Tokens of text that take as long as one of an image, before the first: its ViT has half of the operations (derived).
IMAGE_COST, MAX_IMAGE_COST = 2.0, 64.0


@dataclass(slots=True)
class Throughput:
    """Decayed sums of `tokens` and `seconds`; `fastest` in tokens per second; `total` tokens since the start.

    `turns` are seconds that include waiting for other backends on the same cores. `guess` is the tokens per second
    measured at the backend's verification.
    """

    tokens: float = 0.0
    seconds: float = 0.0
    turns: float = 0.0
    fastest: float = 0.0
    total: int = 0
    guess: float = GUESS

    @property
    def tokens_per_s(self) -> float:
        """0.0 before the first batch."""
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def drained_per_s(self) -> float:
        """Tokens per second by which the queue drains; a guess before the first batch."""
        return self.tokens / self.turns if self.turns else self.guess

    def record(self, tokens: int, seconds: float, turn_s: float = 0.0) -> None:
        """A batch of so many tokens took so long, and `turn_s` with the wait for its turn."""
        seconds = max(seconds, 1e-6)  # a clock may stand still
        self.tokens = _DECAY * self.tokens + tokens
        self.seconds = _DECAY * self.seconds + seconds
        self.turns = _DECAY * self.turns + max(seconds, turn_s)
        self.fastest = max(self.fastest, tokens / seconds)
        self.total += tokens


@dataclass(slots=True)
class ImageCost:
    """What images cost, learnt from the latest batches: decayed sums of their `tokens` and `seconds`."""

    tokens: float = 0.0
    seconds: float = 0.0

    def record(self, tokens: int, seconds: float) -> None:
        """An image of so many tokens took so long."""
        self.tokens = _DECAY * self.tokens + tokens
        self.seconds = _DECAY * self.seconds + seconds

    def of(self, tokens: int, text_tokens_per_s: float) -> int:
        """How many tokens of text take as long as an image of so many."""
        each = self.seconds / self.tokens * text_tokens_per_s if self.tokens else IMAGE_COST
        return round(tokens * min(MAX_IMAGE_COST, max(1.0, each)))


@dataclass(slots=True)
class RetrySchedule:
    """When rejected requests were told to come back: each finds room, behind those that were told before.

    Kept as tokens by the whole second of the caller's clock at which they are due.
    """

    _due: dict[int, int] = field(default_factory=dict)

    def book(self, now: float, tokens: int, *, queued: int, room: int, per_s: float) -> int:
        """Whole seconds, from 1 to LONGEST_RETRY_S, after which a request of so many tokens finds room.

        `queued` tokens wait in a queue that holds `room`; a request that is larger needs an empty one.
        """
        start = int(now)
        self._due = {second: booked for second, booked in self._due.items() if second >= start}
        at, level = start, float(queued)
        for second in sorted(self._due):
            level = max(0.0, level - per_s * (second - at)) + self._due[second]
            at = second
        seconds = math.ceil(at - start + max(0.0, level + min(tokens, room) - room) / per_s)
        seconds = min(LONGEST_RETRY_S, max(1, seconds))
        self._due[start + seconds] = self._due.get(start + seconds, 0) + tokens
        return seconds
