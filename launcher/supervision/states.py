"""The state of one llama-server, as it is reported."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class BackendState(StrEnum):
    SLEEPING = "sleeping"
    STARTING = "starting"
    READY = "ready"
    BACKOFF = "backoff"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The present state. `loaded` is the part of the model that is in memory, 0 to 1; `cause` says why it last failed.

    `since` is when the state began, in seconds of the Unix epoch.
    """

    name: str
    state: BackendState = BackendState.STOPPED
    since: float = 0.0
    pid: int | None = None
    loaded: float = 0.0
    restarts: int = 0
    cause: str = ""


ReportStatus = Callable[[Status], None]  # called at each change of state, and repeatedly while a model is loading
