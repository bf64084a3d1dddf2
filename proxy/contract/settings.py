"""The proxy's settings: read once, frozen, strict. The launcher writes them."""

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from proxy.contract.family import Family, Positive, Strict
from proxy.contract.images import AROUND_IMAGE, IMAGE_TOKENS, BackendImages, ImageOptions
from proxy.contract.log_lines import LogFormat
from proxy.contract.settings_file import BadSettings, LocalPath, read_toml, validated_settings

Seconds = Annotated[float, Field(gt=0)]


def _origin(text: str) -> str:
    if not re.fullmatch(r"\*|[a-z][a-z0-9+.-]*://[^/\s*A-Z]+", text):
        raise ValueError(f'{text!r:.80} is not an origin as browsers write it, such as https://example.com, nor "*"')
    return text


def _host(text: str) -> str:
    if not re.fullmatch(r"\*|[^\s/:*]+", text):
        raise ValueError(f'{text!r:.80} is not the name of a host, such as example.com, nor "*"')
    return text


def _backend_url(text: str) -> str:
    if not re.match(r"unix:///.|https?://.", text):
        raise ValueError(f"{text!r:.80} is not a URL that begins with http://, https:// or unix:///")
    return text


PageOrigin = Annotated[str, AfterValidator(_origin)]
HostName = Annotated[str, AfterValidator(_host)]


class TokenIds(StrEnum):
    """The vocabulary of token ids in a request."""

    CL100K = "cl100k"
    MODEL = "model"
    REFUSE = "refuse"


class BackendSettings(Strict):
    """One llama-server."""

    url: Annotated[str, AfterValidator(_backend_url)]  # `http://…`, `https://…` or `unix:///…`
    slots: Positive = 4  # its `--parallel`
    batch_tokens: Positive = 512  # its `--ubatch-size`
    # its GGUF file: with it the proxy tokenises by itself; without it each text costs a request more
    model_file: LocalPath | None = None
    lora_file: LocalPath | None = None  # the GGUF file of its `--lora`: another vector space
    api_key: str | None = None  # its `--api-key`
    on_demand: bool = False  # it is started by its first request (written by the launcher)
    # a file that all proxies before it share, so that one batch is in flight (written by the launcher)
    lock: Path | None = None
    images: BackendImages | None = None  # how it takes images; without it, it does not (written by the launcher)


def _not_empty(keys: tuple[str, ...]) -> tuple[str, ...]:
    if not keys:
        raise ValueError("is empty, and would serve everybody: add a key, or leave the line out to require none")
    return keys


ApiKeys = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], AfterValidator(_not_empty)]


class EdgeOptions(Strict):
    """What users may set of how clients are served, whatever computes the vectors."""

    api_keys: ApiKeys = ()  # keys that clients must send one of; without any, whoever reaches the port is served
    default_task: str | None = None  # of a request that names none; without it the family's
    model_aliases: dict[str, str] = Field(default_factory=dict)  # other names of the model that clients may ask for
    # what token ids in a request are: OpenAI's vocabulary, the model's own, or refused
    token_ids: TokenIds = TokenIds.CL100K
    max_items: Positive = 2048  # inputs of one request
    max_body_bytes: Positive = 32 * 2**20  # of one request, as sent and as inflated
    max_total_body_bytes: Positive | None = None  # of all unfinished requests; without it eight times `max_body_bytes`
    max_total_answer_bytes: Positive = 2**30  # of the vectors of all requests, until they are sent
    max_connections: Positive = 4096  # open at once; fewer where the system allows fewer open files
    # from one address, which may be a reverse proxy's; without it half of all
    max_connections_per_peer: Positive | None = None
    head_timeout_s: Seconds = 20.0  # for a request's head
    body_timeout_s: Seconds = 30.0  # for a body; a second more for each 16 KiB that came
    # of a silent connection; longer than nginx and load balancers keep theirs: 60 s
    keepalive_timeout_s: Seconds = 65.0
    send_timeout_s: Seconds = 30.0  # for an answer that is not read; a second more for each 16 KiB that wait
    cors_origins: tuple[PageOrigin, ...] = ()  # pages that may use the server from a browser; `*`: any
    # without keys: names that the server is reached by, other than private ones; `*`: any
    allowed_hosts: tuple[HostName, ...] = ()
    request_timeout_s: Seconds = 600.0  # the longest that a request may take, and that `X-Request-Timeout` can ask for
    start_wait_s: Annotated[float, Field(ge=0)] = 120.0  # how long requests wait for a model that is started on demand
    # how long requests wait for a model that failed, before they get a 503
    recovery_s: Annotated[float, Field(ge=0)] = 60.0
    # keep the files and jobs of the batch APIs in this folder; without it these APIs are off. `trillama serve` sets one
    batches_dir: LocalPath | None = None
    max_batch_bytes: Positive = 20 * 2**30  # on disk, of all files of the batch APIs: uploads, and results
    max_batch_file_bytes: Positive = 200 * 2**20  # of one uploaded file
    max_batch_lines: Positive = 50_000  # requests of one batch
    batch_kept_s: Seconds = 7 * 24 * 3600.0  # how long uploads, and results after a job's end, are kept
    log_level: Literal["debug", "info", "warning", "error"] = "info"  # of the proxy's log
    # `json`: what the proxy and `trillama serve` write is one JSON object a line
    log_format: LogFormat = LogFormat.TEXT

    @property
    def total_body_bytes(self) -> int:
        return self.max_total_body_bytes or 8 * self.max_body_bytes

    def check(self, family: Family) -> None:
        """Raises ValueError for settings that contradict the family."""
        if self.default_task is not None:
            family.check_task(self.default_task, "default_task")
        family.check_aliases(self.model_aliases)

    @model_validator(mode="after")
    def _check_body_limits(self) -> Self:
        if self.total_body_bytes < 2 * self.max_body_bytes:
            raise ValueError(
                f"max_total_body_bytes = {self.max_total_body_bytes} is less than twice max_body_bytes = "
                f"{self.max_body_bytes}: one large request would be refused for another"
            )
        return self


class ProxyOptions(EdgeOptions):
    """What users may set: `[proxy]` in the host's file, and the top level of the proxy's own file."""

    # keys whose owners may also restart, pause and reload in the console, and read the backends' logs there; without
    # any, and without `api_keys`, whoever uses the server from its own machine may
    admin_keys: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    console: bool = True  # the page at `/` for browsers, with what it asks below `/console/`
    # of one backend's queue; beyond it 429. Roughly what a fast GPU computes within `request_timeout_s`
    max_queued_tokens: Positive = 2**22
    serial_backends: bool = False  # one batch at a time over all backends; set where no GPU computes
    cache_bytes: Annotated[int, Field(ge=0)] = 0  # keep computed vectors, by their exact tokens and model; 0: do not
    cache_file: LocalPath | None = None  # keep them in this SQLite file; without it in memory
    # what `trillama models pull --multivector` makes; without it where that puts it
    multivector_file: LocalPath | None = None
    images: ImageOptions = ImageOptions()  # what clients may send as images, where the models take images


class ProxySettings(ProxyOptions):
    """The whole file of the proxy. The launcher fills in the rest: see `launcher.proxies.settings`."""

    family: LocalPath  # the family file, relative to this file
    backends: dict[str, BackendSettings]  # the llama-servers
    token_backends: dict[str, BackendSettings] = Field(default_factory=dict)  # the same models with `--pooling none`
    host: str = "127.0.0.1"  # the address to listen on
    port: Annotated[int, Field(ge=0, le=65535)] = 8080  # 0: a free one
    max_input_tokens: Positive | None = None  # the longest text, prefix included; without it the family's
    drain_s: Annotated[float, Field(ge=0)] = 10.0  # how long batches in flight may take when the proxy ends
    control: Path | None = None  # the socket by which the launcher pauses backends (written by the launcher)
    launcher: Path | None = None  # the launcher's control socket, which tells about processes (written by the launcher)
    notice: str | None = None  # a line that is printed at each start, and that `/v1/models` has

    @model_validator(mode="after")
    def _check_limits(self) -> Self:
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
            if backend.images and backend.batch_tokens < IMAGE_TOKENS + AROUND_IMAGE:
                raise ValueError(
                    f"backends.{name}.batch_tokens = {backend.batch_tokens} is less than an image can have with its "
                    f"prompt: {IMAGE_TOKENS + AROUND_IMAGE} tokens"
                )
        return self

    def check_images(self, family: Family) -> None:
        """Raises ValueError if a backend takes images and the family's vectors are not means over what came before."""
        for name, backend in self.backends.items():
            if backend.images and not family.weights.can_pool_images:
                raise ValueError(
                    f"backends.{name}.images: {family.name} has no vectors of images as they are made here"
                )


def load_proxy_settings(path: Path) -> tuple[ProxySettings, Family]:
    """The settings in `path` and the family they name. Raises BadSettings."""
    config = validated_settings(ProxySettings, read_toml(path), path)
    family_file = path.parent / config.family
    family = validated_settings(Family, read_toml(family_file), family_file)
    try:
        config.check(family)
        family.check_backends(config.backends.keys())
        config.check_images(family)
    except ValueError as error:
        raise BadSettings(f"{path}: {error}") from error
    return config, family
