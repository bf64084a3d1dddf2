"""The proxy's settings and its part of the family file. Read once, frozen, strict."""

import tomllib
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

T = TypeVar("T", bound=BaseModel)
Positive = Annotated[int, Field(gt=0)]
UnicodeForm = Literal["NFC", "NFKC"]


class ConfigError(Exception):
    """A setting is missing, unknown or contradicts another; the message names file and field."""


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TaskSettings(Strict):
    """One row of the task table: which backend serves it, and the prefix the model was trained with."""

    backend: str
    prefix: str


class MultiVector(BaseModel):
    """How long each vector of a multi-vector is; the rest of the table is the launcher's."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    dimensions: Positive


class Family(BaseModel):
    """What the proxy needs of a family file; `[weights]` in the same file is the launcher's."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    owned_by: str
    hugging_face_id: str
    licence: str
    dimensions: Positive
    trained_dimensions: tuple[Positive, ...]
    max_input_tokens: Positive
    unicode_normalization: UnicodeForm | None = None
    default_task: str
    tasks: dict[str, TaskSettings]
    task_aliases: dict[str, str] = {}
    model_aliases: dict[str, str] = {}
    multivector: MultiVector | None = None


class TokenIds(StrEnum):
    """Which vocabulary token ids in a request are of."""

    CL100K = "cl100k"
    MODEL = "model"
    REFUSE = "refuse"


class BackendSettings(Strict):
    """One llama-server. `slots` and `batch_tokens` are its `--parallel` and `--ubatch-size`.

    `on_demand`: it is not there until somebody asks for it.
    """

    url: Annotated[str, Field(pattern=r"^(unix:///.|https?://.)")]
    slots: Positive = 4
    batch_tokens: Positive = 512
    model_file: Path | None = None
    api_key: str | None = None
    on_demand: bool = False


class TokenBackendSettings(Strict):
    """A llama-server with `--pooling none` and the same model file as a backend: it gives the states of tokens."""

    url: Annotated[str, Field(pattern=r"^(unix:///.|https?://.)")]
    api_key: str | None = None


class ProxyConfig(Strict):
    """The proxy's file, whole."""

    family: Path
    backends: dict[str, BackendSettings]
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    api_keys: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    default_task: str | None = None
    model_aliases: dict[str, str] = {}
    token_ids: TokenIds = TokenIds.CL100K
    max_input_tokens: Positive | None = None
    max_items: Positive = 2048
    max_body_bytes: Positive = 32 * 2**20
    max_queued_tokens: Positive = 2**22  # about what a fast GPU computes within request_timeout_s
    request_timeout_s: Annotated[float, Field(gt=0)] = 600.0
    start_wait_s: Annotated[float, Field(ge=0)] = 120.0
    recovery_s: Annotated[float, Field(ge=0)] = 60.0
    serial_backends: bool = False
    cache_bytes: Annotated[int, Field(ge=0)] = 0
    cache_file: Path | None = None
    drain_s: Annotated[float, Field(ge=0)] = 10.0
    control: Path | None = None
    multivector_file: Path | None = None  # what `trillama models pull --multivector` makes
    token_backends: dict[str, TokenBackendSettings] = {}  # by the backends' names
    notice: str | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @model_validator(mode="after")
    def _token_backends_have_a_backend(self) -> Self:
        if unknown := sorted(self.token_backends.keys() - self.backends.keys()):
            raise ValueError(f"token_backends.{unknown[0]}: no such backend; there are {', '.join(self.backends)}")
        return self

    @model_validator(mode="after")
    def _limits_agree(self) -> Self:
        for name, backend in self.backends.items():
            if self.max_input_tokens and backend.batch_tokens < self.max_input_tokens:
                raise ValueError(
                    f"backends.{name}.batch_tokens = {backend.batch_tokens} is less than max_input_tokens = "
                    f"{self.max_input_tokens}: an input must fit one physical batch (llama-server's --ubatch-size)"
                )
        return self


def load(path: Path) -> tuple[ProxyConfig, Family]:
    """The settings in `path` and the family they name. Raises ConfigError."""
    config = _validated(ProxyConfig, path)
    return config, _validated(Family, path.parent / config.family.expanduser())


def _validated(model: type[T], path: Path) -> T:
    try:
        return model.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"{path}: {faults}") from error
