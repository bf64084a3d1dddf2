"""The status document of a running launcher: the body of `GET /status` on its control socket."""

from pydantic import BaseModel, ConfigDict

from launcher.supervision.states import BackendState
from proxy.contract.admin import BackendProcess

EXIT_CODE = "X-Trillama-Exit-Code"  # header of a refusal: the exit code of the command that is refused


class BackendView(BackendProcess):
    """One backend, and its queue in the proxy: None while the proxy does not answer."""

    state: BackendState
    waiting_texts: int | None
    waiting_tokens: int | None
    tokens_per_s: float | None


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


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
