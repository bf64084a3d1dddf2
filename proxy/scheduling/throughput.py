"""How fast a backend is, from the calls it has answered."""

from dataclasses import dataclass

FORGET = 0.9  # of what was seen is kept at the next call, so that some twenty calls count
UNKNOWN_S = 5
LONGEST_S = 600


@dataclass(slots=True)
class Throughput:
    """`tokens` and `seconds` of the last calls, each counting by its size; `fastest` in tokens per second; `total`."""

    tokens: float = 0.0
    seconds: float = 0.0
    fastest: float = 0.0
    total: int = 0

    @property
    def tokens_per_s(self) -> float:
        """0.0 before the first call."""
        return self.tokens / self.seconds if self.seconds else 0.0

    def saw(self, tokens: int, seconds: float) -> None:
        """A call of so many tokens took so long."""
        seconds = max(seconds, 1e-6)  # a clock may stand still
        self.tokens = FORGET * self.tokens + tokens
        self.seconds = FORGET * self.seconds + seconds
        self.fastest = max(self.fastest, tokens / seconds)
        self.total += tokens

    def seconds_for(self, tokens: int) -> int:
        """Whole seconds for that many, from 1 to 600: what a Retry-After says."""
        return min(LONGEST_S, 1 + int(tokens / self.tokens_per_s)) if self.seconds else UNKNOWN_S
