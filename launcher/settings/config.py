"""The host's settings, and the family that they name. Read once, frozen, strict."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, Field

from launcher.errors import ConfigError
from launcher.settings.credentials import api_keys
from launcher.settings.family import BY_TOKEN, Family
from proxy.contract import settings_file
from proxy.contract.family import Positive, Strict
from proxy.contract.settings import ProxyOptions, ProxySettings
from proxy.contract.settings_file import LocalPath, home_path

T = TypeVar("T", bound=BaseModel)
Seconds = Annotated[float, Field(gt=0)]
FlashAttention = Literal["auto", "on", "off"]
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class EngineSettings(Strict):
    """How llama-server is found and run; `[engine]` in the host's file.

    What `trillama tune` measured (`launcher.engine.profile`) is used for those of TUNED that the file does not set.
    """

    llama_server: LocalPath | None = None
    gpu_layers: Annotated[int, Field(ge=0)] = 99
    require_gpu: Literal["auto"] | bool = "auto"
    slots: Annotated[int, Field(gt=0, le=256)] = 16
    threads: Positive | None = None
    flash_attention: FlashAttention = "auto"
    extra_flags: tuple[str, ...] = ()


class Mode(StrEnum):
    ALWAYS = "always"
    ON_DEMAND = "on-demand"


class BackendOptions(Strict):
    """One backend's own settings; `[backends.NAME]` in the host's file.

    One that runs on demand starts with its first request and ends when it has not been used for `idle_s`.
    """

    mode: Mode = Mode.ALWAYS
    idle_s: Seconds = 600.0


class LateChunkingSettings(Strict):
    """`token_level`: each model has a second llama-server, on demand, that gives every token's state to the proxy."""

    token_level: bool = False
    idle_s: Seconds = 600.0


class SupervisionSettings(Strict):
    """When a process counts as stuck or dead, and when it is started again; `[supervision]` in the host's file."""

    grace_s: Seconds = 10.0
    stall_s: Seconds = 120.0
    probe_interval_s: Seconds = 5.0
    max_misses: Positive = 3
    canary_interval_s: Seconds = 60.0
    canary_timeout_s: Seconds = 120.0
    gpu_tokens_per_s: Annotated[float, Field(ge=0)] = 100.0  # a GPU that is slower is not computing
    memory_wait_s: Seconds = 30.0
    stable_s: Seconds = 60.0
    first_delay_s: Seconds = 10.0
    quick_delay_s: Seconds = 1.0
    max_delay_s: Seconds = 300.0
    max_failures: Annotated[int, Field(ge=0)] = 12
    failed_retry_s: Seconds = 3600.0


class ModelSettings(Strict):
    """Which weights to serve; `[models]` in the host's file. A path in `files` is used as it is, no download.

    `quantization` "auto" is the best that fits this machine (`launcher.planning`); absent, it is the family's own.
    """

    quantization: str | None = None
    files: dict[str, LocalPath] = Field(default_factory=dict)


class HostConfig(Strict):
    """The host's file, whole."""

    family: str = "jina-embeddings-v4"
    demo: bool = False
    notice: str | None = None
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    max_input_tokens: Positive | None = None
    runtime_dir: LocalPath | None = None
    models: ModelSettings = ModelSettings()
    engine: EngineSettings = EngineSettings()
    backends: dict[str, BackendOptions] = Field(default_factory=dict)
    late_chunking: LateChunkingSettings = LateChunkingSettings()
    supervision: SupervisionSettings = SupervisionSettings()
    proxy: ProxyOptions = ProxyOptions()


@dataclass(frozen=True, slots=True)
class Settings:
    """All that was read: the host's file and the family that it names."""

    host: HostConfig
    family: Family
    family_file: Path

    @property
    def max_input_tokens(self) -> int:
        """The served length of one text, prefix included."""
        return self.host.max_input_tokens or self.family.max_input_tokens

    def backend(self, name: str) -> BackendOptions:
        """The settings of one backend, or of the second one of its model."""
        if name.endswith(BY_TOKEN):
            return BackendOptions(mode=Mode.ON_DEMAND, idle_s=self.host.late_chunking.idle_s)
        return self.host.backends.get(name, BackendOptions())

    def with_host(self, **changes: object) -> "Settings":
        """The same, with some of the host's settings changed."""
        return replace(self, host=self.host.model_copy(update=changes))


def load(path: Path | None, overrides: Mapping[str, object] | None = None) -> Settings:
    """The settings in the host's file (the defaults without one); `overrides` beat it, where they are not None.

    API keys that systemd hands over are added to those of the file. Raises ConfigError naming the file and the field.
    """
    where = path or "the arguments"
    given = {} if path is None else _read(path)
    given |= {key: value for key, value in (overrides or {}).items() if value is not None}
    _refuse_what_is_ours(given.get("proxy"), where)
    host = _validated(HostConfig, given, where)
    family_file = _family_path(host.family, path)
    family = _validated(Family, _read(family_file), family_file)
    _check_agreement(host, family, where)
    return Settings(_completed(host, family), family, family_file)


def _refuse_what_is_ours(proxy: object, where: Path | str) -> None:
    """Raises ConfigError for a setting of the proxy's that the launcher writes."""
    ours = ProxySettings.model_fields.keys() - ProxyOptions.model_fields.keys()
    if isinstance(proxy, Mapping) and (taken := sorted(ours & proxy.keys())):
        raise ConfigError(f"{where}: [proxy] must not set {', '.join(taken)}: this file has it elsewhere, for all")


def _check_agreement(host: HostConfig, family: Family, where: Path | str) -> None:
    """Raises ConfigError where the host's file names what the family does not have."""
    there = family.weights.models
    for table, named in (("backends", host.backends), ("models.files", host.models.files)):
        if unknown := sorted(named.keys() - there.keys()):
            raise ConfigError(f"{where}: {table}.{unknown[0]}: no such backend; there are {', '.join(there)}")
    try:
        host.proxy.check(family)
    except ValueError as error:
        raise ConfigError(f"{where}: [proxy] {error}") from error


def _completed(host: HostConfig, family: Family) -> HostConfig:
    """With systemd's API keys, and the quantisation in the family's own spelling."""
    handed_over = api_keys()
    keys = {"api_keys": (*host.proxy.api_keys, *handed_over)} if handed_over else {}
    named = host.models.quantization
    own = None if named is None else "auto" if named.casefold() == "auto" else family.weights.named(named)
    models = host.models.model_copy(update={"quantization": own})
    return host.model_copy(update={"proxy": host.proxy.model_copy(update=keys), "models": models})


def configs_dir() -> Path:
    """The folder `configs/`: inside the installed package, or beside it in a checkout."""
    installed = Path(__file__).parents[1] / "configs"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "configs"


def _family_path(family: str, beside: Path | None) -> Path:
    if not family.endswith(".toml"):
        path = configs_dir() / f"{family}.toml"
        if not path.is_file():
            raise ConfigError(f'family = "{family}": no such file {path}; give a name of configs/ or a path to a .toml')
        return path
    try:
        return (beside.parent if beside else Path()) / home_path(Path(family))
    except ValueError as error:
        raise ConfigError(f"family: {error}") from error


def _read(path: Path) -> dict[str, object]:
    try:
        return settings_file.read(path)
    except settings_file.BadSettings as error:
        raise ConfigError(str(error)) from error


def _validated(model: type[T], given: Mapping[str, object], where: Path | str) -> T:
    try:
        return settings_file.validated(model, given, where)
    except settings_file.BadSettings as error:
        raise ConfigError(str(error)) from error
