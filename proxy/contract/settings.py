"""The proxy's settings: read once, frozen, strict. The launcher writes them."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from proxy.contract.family import Family, Positive, Strict
from proxy.contract.settings_file import BadSettings, LocalPath, read, validated

Seconds = Annotated[float, Field(gt=0)]
Origin = Annotated[str, Field(pattern=r"^(\*|[a-z][a-z0-9+.-]*://[^/\s*A-Z]+)$")]  # as a browser writes it
HostName = Annotated[str, Field(pattern=r"^(\*|[^\s/:*]+)$")]


class TokenIds(StrEnum):
    """The vocabulary of token ids in a request."""

    CL100K = "cl100k"
    MODEL = "model"
    REFUSE = "refuse"


class BackendSettings(Strict):
    """One llama-server. `slots` and `batch_tokens` are its `--parallel` and `--ubatch-size`.

    `on_demand`: it is started by the first request. `lock` is a file that all proxies in front of it share.
    """

    url: Annotated[str, Field(pattern=r"^(unix:///.|https?://.)")]
    slots: Positive = 4
    batch_tokens: Positive = 512
    model_file: LocalPath | None = None
    api_key: str | None = None
    on_demand: bool = False
    lock: Path | None = None


def _not_empty(keys: tuple[str, ...]) -> tuple[str, ...]:
    if not keys:
        raise ValueError("is empty, and would serve everybody: add a key, or leave the line out to require none")
    return keys


ApiKeys = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], AfterValidator(_not_empty)]


class ProxyOptions(Strict):
    """What users may set: `[proxy]` in the host's file, and the top level of the proxy's own file."""

    api_keys: ApiKeys = ()
    default_task: str | None = None
    model_aliases: dict[str, str] = Field(default_factory=dict)
    token_ids: TokenIds = TokenIds.CL100K
    max_items: Positive = 2048
    max_body_bytes: Positive = 32 * 2**20  # of one request, as sent and as inflated
    max_total_body_bytes: Positive | None = None  # of all unfinished requests; none: eight times max_body_bytes
    max_total_answer_bytes: Positive = 2**30  # of the vectors of all requests, until they are sent
    max_connections: Positive = 4096
    max_connections_per_peer: Positive | None = None  # from one address, which may be a reverse proxy's; none: half
    head_timeout_s: Seconds = 20.0
    body_timeout_s: Seconds = 30.0
    keepalive_timeout_s: Seconds = 65.0  # longer than nginx and load balancers keep theirs: 60 s
    send_timeout_s: Seconds = 30.0
    cors_origins: tuple[Origin, ...] = ()
    allowed_hosts: tuple[HostName, ...] = ()
    max_queued_tokens: Positive = 2**22  # roughly what a fast GPU computes within request_timeout_s
    request_timeout_s: Seconds = 600.0
    start_wait_s: Annotated[float, Field(ge=0)] = 120.0
    recovery_s: Annotated[float, Field(ge=0)] = 60.0
    serial_backends: bool = False
    cache_bytes: Annotated[int, Field(ge=0)] = 0
    cache_file: LocalPath | None = None
    multivector_file: LocalPath | None = None  # what `trillama models pull --multivector` makes
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    def check(self, family: Family) -> None:
        """Raises ValueError for settings that contradict the family."""
        if self.default_task is not None:
            family.check_task(self.default_task, "default_task")
        family.check_aliases(self.model_aliases)


class ProxySettings(ProxyOptions):
    """The whole file of the proxy. The launcher fills in the rest: see `launcher.proxies.settings`."""

    family: LocalPath
    backends: dict[str, BackendSettings]
    token_backends: dict[str, BackendSettings] = Field(default_factory=dict)  # the same models with `--pooling none`
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    max_input_tokens: Positive | None = None
    drain_s: Annotated[float, Field(ge=0)] = 10.0
    control: Path | None = None
    notice: str | None = None

    @property
    def total_body_bytes(self) -> int:
        return self.max_total_body_bytes or 8 * self.max_body_bytes

    @model_validator(mode="after")
    def _check_limits(self) -> Self:
        if self.total_body_bytes < 2 * self.max_body_bytes:
            raise ValueError(
                f"max_total_body_bytes = {self.max_total_body_bytes} is less than twice max_body_bytes = "
                f"{self.max_body_bytes}: one large request would be refused for another"
            )
        if unknown := sorted(self.token_backends.keys() - self.backends.keys()):
            raise ValueError(
                f"token_backends.{unknown[0]}: there is no such backend; there are {', '.join(self.backends)}"
            )
        for name, backend in [*self.backends.items(), *self.token_backends.items()]:
            if self.max_input_tokens and backend.batch_tokens < self.max_input_tokens:
                raise ValueError(
                    f"backends.{name}.batch_tokens = {backend.batch_tokens} is less than max_input_tokens = "
                    f"{self.max_input_tokens}: an input must fit one physical batch (llama-server's --ubatch-size)"
                )
        return self


def load(path: Path) -> tuple[ProxySettings, Family]:
    """The settings in `path` and the family they name. Raises BadSettings."""
    config = validated(ProxySettings, read(path), path)
    family_file = path.parent / config.family
    family = validated(Family, read(family_file), family_file)
    try:
        config.check(family)
        family.check_backends(config.backends.keys())
    except ValueError as error:
        raise BadSettings(f"{path}: {error}") from error
    return config, family
