"""The status of one backend, as the proxy reports it to the launcher."""

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """READY and DOWN answer at once; in the other states requests wait."""

    READY = "ready"
    LOADING = "loading"
    RECOVERING = "recovering"
    PAUSED = "held"  # its first name, as a launcher that is still running may read it
    DOWN = "down"


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendLoad:
    """A snapshot of one backend's queue. `idle_s`: since its last request finished, 0 while there is one."""

    state: State
    reason: str
    waiting_texts: int
    waiting_tokens: int
    in_flight_texts: int
    tokens_per_s: float
    tokens_total: int
    requests_total: int
    idle_s: float
