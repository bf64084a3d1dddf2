"""How one model stands: what a launcher, and its user, are told."""

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """READY and DOWN answer at once; in the other states requests wait."""

    READY = "ready"
    LOADING = "loading"
    RECOVERING = "recovering"
    PAUSED = "held"
    DOWN = "down"


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendLoad:
    """One model's line at a moment. `idle_s`: since its last request left, 0 while there is one."""

    state: State
    reason: str
    waiting_texts: int
    waiting_tokens: int
    in_flight_texts: int
    tokens_per_s: float
    tokens_total: int
    requests_total: int
    idle_s: float
