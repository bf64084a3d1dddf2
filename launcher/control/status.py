"""The status document of a running launcher: the body of `GET /status` on its control socket."""

from pydantic import BaseModel, ConfigDict

from launcher.supervision.backend import BackendState


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class BackendView(_Body):
    """One backend. `since` is in seconds of the Unix epoch, `loaded` from 0 to 1, `resident_bytes` host memory.

    `devices` are those it is placed on, none for the CPU, and `planned_bytes` what it is planned to take of each. The
    last three describe its queue in the proxy, and are None while the proxy does not answer.
    """

    name: str
    state: BackendState
    since: float
    pid: int | None
    loaded: float
    restarts: int
    cause: str
    model: str
    batch_tokens: int
    slots: int
    on_demand: bool
    devices: tuple[str, ...]
    planned_bytes: dict[str, int]
    resident_bytes: int | None
    waiting_texts: int | None
    waiting_tokens: int | None
    tokens_per_s: float | None


class EngineView(_Body):
    origin: str
    version: str


class View(_Body):
    """The launcher and all its backends."""

    version: str
    url: str
    port: int
    since: float
    family: str
    logs: str
    engine: EngineView
    backends: tuple[BackendView, ...]
