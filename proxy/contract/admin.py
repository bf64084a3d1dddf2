"""What proxy and launcher tell each other about backends: each has a control socket that the other asks."""

from dataclasses import dataclass
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

SPACES_HEADER = "X-Trillama-Spaces"  # of `/ready`: one id for the vector spaces of all backends
LANE_HEADER = "X-Trillama-Lane"  # of a request; `bulk`: it is in no hurry


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


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class BackendProcess(_Body):
    """One llama-server. `since` is in seconds of the Unix epoch, `loaded` from 0 to 1, `resident_bytes` host memory.

    `devices` are those it is placed on, none for the CPU, and `planned_bytes` what it is planned to take of each.
    `paused`: an operator has paused it.
    """

    name: str
    state: str
    since: float
    pid: int | None
    loaded: float
    restarts: int
    cause: str
    model: str
    batch_tokens: int
    slots: int
    on_demand: bool
    paused: bool = False
    devices: tuple[str, ...]
    planned_bytes: dict[str, int]
    resident_bytes: int | None


class LauncherReport(_Body):
    """The body of `GET /processes` on the launcher's control socket. `logs` is the folder of the backends' logs."""

    version: str
    logs: str
    backends: tuple[BackendProcess, ...]
