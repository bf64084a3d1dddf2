"""The host's settings and the launcher's part of the family file. Read once, frozen, strict."""

import os
import tempfile
import tomllib
from pathlib import Path
from typing import Annotated, Self, TypeVar

from platformdirs import user_cache_path
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from launcher.errors import ConfigError

T = TypeVar("T", bound=BaseModel)
Positive = Annotated[int, Field(gt=0)]
LocalPath = Annotated[Path, AfterValidator(Path.expanduser)]


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelSource(Strict):
    """Where one backend's weights come from: a hub repository and a file name with `{quantization}` in it."""

    repo: str
    file: str


class Weights(Strict):
    """The `[weights]` table of a family file."""

    architecture: str
    quantization: str
    quantizations: tuple[str, ...]
    models: dict[str, ModelSource]


class Family(BaseModel):
    """What the launcher needs of a family file; tasks and prefixes in the same file are the proxy's."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    licence: str
    dimensions: Positive
    max_input_tokens: Positive
    weights: Weights


class EngineSettings(Strict):
    """How llama-server is found and run; `[engine]` in the host's file."""

    llama_server: LocalPath | None = None
    gpu_layers: Annotated[int, Field(ge=0)] = 99
    slots: Annotated[int, Field(gt=0, le=256)] = 16
    threads: Positive | None = None
    ready_timeout_s: Annotated[float, Field(gt=0)] = 600.0
    grace_s: Annotated[float, Field(gt=0)] = 10.0


class ModelSettings(Strict):
    """Which weights to serve; `[models]` in the host's file. A path in `files` is used as it is, no download."""

    quantization: str | None = None
    files: dict[str, LocalPath] = {}


class HostConfig(Strict):
    """The host's file, whole. `proxy` is handed on to the proxy, which checks it: see `proxy/config.py`."""

    family: str = "jina-embeddings-v4"
    demo: bool = False
    notice: str | None = None
    max_input_tokens: Positive | None = None
    runtime_dir: LocalPath | None = None
    models: ModelSettings = ModelSettings()
    engine: EngineSettings = EngineSettings()
    proxy: dict[str, object] = {}

    @model_validator(mode="after")
    def _owned_by_the_launcher(self) -> Self:
        if taken := sorted({"family", "backends", "max_input_tokens", "notice"} & self.proxy.keys()):
            raise ValueError(f"[proxy] must not set {', '.join(taken)}: the launcher fills it in")
        return self


def load_host(path: Path | None) -> HostConfig:
    """The host's file, or the defaults without one. Raises ConfigError naming the file and the field."""
    return HostConfig() if path is None else _validated(HostConfig, path)


def load_family(family: str, *, beside: Path | None = None) -> tuple[Family, Path]:
    """The family by name (a file of `configs/`) or by path (relative to the host's file), and the file it is in."""
    path = _family_path(family, beside)
    return _validated(Family, path), path


def configs_dir() -> Path:
    """The folder `configs/`: inside the installed package, or beside it in a checkout."""
    installed = Path(__file__).parent / "configs"
    return installed if installed.is_dir() else Path(__file__).parent.parent / "configs"


def cache_dir() -> Path:
    """Where built engines and demo models are kept: $TRILLAMA_CACHE, else the user's cache folder."""
    return Path(os.environ["TRILLAMA_CACHE"]) if "TRILLAMA_CACHE" in os.environ else user_cache_path("trillama")


def runtime_base() -> Path:
    """The parent of the private folder with our sockets: systemd's folder, the user's runtime folder, or /tmp."""
    given = os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0] or os.environ.get("XDG_RUNTIME_DIR", "")
    return Path(given) if given and Path(given).is_dir() else Path(tempfile.gettempdir())


def _family_path(family: str, beside: Path | None) -> Path:
    if not family.endswith(".toml"):
        path = configs_dir() / f"{family}.toml"
        if not path.is_file():
            raise ConfigError(f'family = "{family}": no such file {path}; give a name of configs/ or a path to a .toml')
        return path
    return (beside.parent if beside else Path()) / Path(family).expanduser()


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
