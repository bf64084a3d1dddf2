"""An estimate of how fast a backend is, from its latest batches."""

from dataclasses import dataclass

DECAY = 0.9  # weight that earlier batches keep at each new one, so that about twenty count
UNKNOWN_S = 5
LONGEST_S = 600


@dataclass(slots=True)
class Throughput:
    """Decayed sums of `tokens` and `seconds`; `fastest` in tokens per second; `total` tokens since the start."""

    tokens: float = 0.0
    seconds: float = 0.0
    fastest: float = 0.0
    total: int = 0

    @property
    def tokens_per_s(self) -> float:
        """0.0 before the first batch."""
        return self.tokens / self.seconds if self.seconds else 0.0

    def record(self, tokens: int, seconds: float) -> None:
        """A batch of so many tokens took so long."""
        seconds = max(seconds, 1e-6)  # a clock may stand still
        self.tokens = DECAY * self.tokens + tokens
        self.seconds = DECAY * self.seconds + seconds
        self.fastest = max(self.fastest, tokens / seconds)
        self.total += tokens

    def seconds_for(self, tokens: int) -> int:
        """Whole seconds for that many tokens, from 1 to 600: the value of a Retry-After header."""
        return min(LONGEST_S, 1 + int(tokens / self.tokens_per_s)) if self.seconds else UNKNOWN_S
