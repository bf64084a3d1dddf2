"""What a running launcher tells of itself: the body of `GET /status` on its control socket."""

from pydantic import BaseModel, ConfigDict

from launcher.backend import State


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class BackendView(_Body):
    """One backend. `since` is in seconds of the Unix epoch, `loaded` from 0 to 1, `resident_bytes` host memory."""

    name: str
    state: State
    since: float
    pid: int | None
    loaded: float
    restarts: int
    cause: str
    model: str
    batch_tokens: int
    slots: int
    resident_bytes: int | None


class EngineView(_Body):
    origin: str
    version: str


class View(_Body):
    """The whole set."""

    version: str
    url: str
    port: int
    since: float
    family: str
    logs: str
    engine: EngineView
    backends: tuple[BackendView, ...]
