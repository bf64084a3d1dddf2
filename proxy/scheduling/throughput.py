"""How fast a backend is, from the calls it has answered, and when those who are refused should come back."""

import math
from dataclasses import dataclass, field

FORGET = 0.9  # of what was seen is kept at the next call, so that some twenty calls count
GUESS = 1000.0  # tokens per second, of a backend of which nothing is known
LONGEST_S = 600


@dataclass(slots=True)
class Throughput:
    """`tokens` and `seconds` of the last calls, each counting by its size; `fastest` in tokens per second; `total`.

    `turns` are the seconds with the waiting for other backends on the same cores. `guess` is tokens per second at the
    backend's verification.
    """

    tokens: float = 0.0
    seconds: float = 0.0
    turns: float = 0.0
    fastest: float = 0.0
    total: int = 0
    guess: float = GUESS

    @property
    def tokens_per_s(self) -> float:
        """0.0 before the first call."""
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def drained_per_s(self) -> float:
        """Tokens per second by which a line gets shorter; a guess before the first call."""
        return self.tokens / self.turns if self.turns else self.guess

    def saw(self, tokens: int, seconds: float, turn_s: float = 0.0) -> None:
        """A call of so many tokens took so long, and its turn, with the wait for it, so long."""
        seconds = max(seconds, 1e-6)  # a clock may stand still
        self.tokens = FORGET * self.tokens + tokens
        self.seconds = FORGET * self.seconds + seconds
        self.turns = FORGET * self.turns + max(seconds, turn_s)
        self.fastest = max(self.fastest, tokens / seconds)
        self.total += tokens


@dataclass(slots=True)
class Returns:
    """Who was told to come back, and when: each finds room, behind those who were told before.

    Kept as tokens by the whole second of the caller's clock when they are due.
    """

    _due: dict[int, int] = field(default_factory=dict)

    def told(self, now: float, tokens: int, *, queued: int, room: int, per_s: float) -> int:
        """Whole seconds, from 1 to LONGEST_S, after which a request of so many tokens finds room.

        `queued` tokens wait in a line that takes `room`; a request that is larger needs an empty one.
        """
        start = int(now)
        self._due = {second: booked for second, booked in self._due.items() if second >= start}
        at, level = start, float(queued)
        for second in sorted(self._due):
            level = max(0.0, level - per_s * (second - at)) + self._due[second]
            at = second
        seconds = math.ceil(at - start + max(0.0, level + min(tokens, room) - room) / per_s)
        seconds = min(LONGEST_S, max(1, seconds))
        self._due[start + seconds] = self._due.get(start + seconds, 0) + tokens
        return seconds
