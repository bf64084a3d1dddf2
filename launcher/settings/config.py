"""The host's settings, and the family they name. Read once, frozen, strict."""

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, Field

from launcher.errors import ConfigError
from launcher.settings.credentials import api_keys
from launcher.settings.family import BY_TOKEN, FamilyFile
from launcher.settings.file_kind import FileKind, mistaken_file
from proxy.contract import settings_file
from proxy.contract.family import Positive, Strict
from proxy.contract.settings import ProxyOptions, ProxySettings, Seconds
from proxy.contract.settings_file import LocalPath, home_path

T = TypeVar("T", bound=BaseModel)
FlashAttention = Literal["auto", "on", "off"]
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class EngineSettings(Strict):
    """How llama-server is found and run; `[engine]` in the host's file.

    For the fields in TUNED that the file does not set, `trillama tune`'s results are used (`launcher.engine.profile`).
    """

    llama_server: LocalPath | None = None  # the llama-server to run; else one built here, on PATH, or the embedded one
    gpu_layers: Annotated[int, Field(ge=0)] = 99  # layers of the model on the GPU; 0: compute on the CPU
    # true: never the CPU; "auto": if the engine was built for a GPU; false: take what there is
    require_gpu: Literal["auto"] | bool = "auto"
    slots: Annotated[int, Field(gt=0, le=256)] = 16  # texts that each llama-server computes at once
    # for computing; without it llama-server's own choice, or as many as this process may use
    threads: Positive | None = None
    flash_attention: FlashAttention = "auto"  # llama.cpp's `--flash-attn`
    extra_flags: tuple[str, ...] = ()  # more flags for llama-server; those that trillama decides are refused


class Mode(StrEnum):
    ALWAYS = "always"
    ON_DEMAND = "on-demand"


class BackendOptions(Strict):
    """The settings of one backend; `[backends.NAME]` in the host's file.

    An on-demand backend starts at its first request and stops after `idle_s` without one.
    """

    mode: Mode = Mode.ALWAYS  # `always`: started with trillama; `on-demand`: started by its first request
    idle_s: Seconds = 600.0  # one on demand ends after so long without a request


class LateChunkingSettings(Strict):
    """`token_level`: each model gets a second, on-demand llama-server that returns the state of every token."""

    # a second llama-server per model, on demand, for late chunking of many chunks and for multi-vectors
    token_level: bool = False
    idle_s: Seconds = 600.0  # it ends after so long without a request


class SupervisionSettings(Strict):
    """When a process counts as stuck or dead, and when it is restarted; `[supervision]` in the host's file."""

    grace_s: Seconds = 10.0  # from SIGTERM to a stronger signal
    stall_s: Seconds = 120.0  # a start that loads nothing for this long is stuck; 5 times this while it uses CPU time
    probe_interval_s: Seconds = 5.0  # between two probes of `/health`
    max_misses: Positive = 3  # so many failed probes in a row end a backend
    canary_interval_s: Seconds = 60.0  # between two checks of the vectors, while idle
    canary_timeout_s: Seconds = 120.0  # for one such check
    gpu_tokens_per_s: Annotated[float, Field(ge=0)] = 100.0  # a GPU that is slower is not computing
    memory_wait_s: Seconds = 30.0  # how long a start waits for the memory of the process before it
    stable_s: Seconds = 60.0  # a run of that length counts as good: failures are counted from one again
    first_delay_s: Seconds = 10.0  # before the next start of a backend that was never ready; doubled each time
    quick_delay_s: Seconds = 1.0  # the same for one that was ready
    max_delay_s: Seconds = 300.0  # the longest of these delays
    max_failures: Annotated[int, Field(ge=0)] = 12  # after so many in a row `failed_retry_s` is the delay
    failed_retry_s: Seconds = 3600.0  # between two starts of a backend that failed so often


class ModelSettings(Strict):
    """Which weights to serve; `[models]` in the host's file. A path in `files` is used as it is, without a download.

    `quantization` "auto" picks the best that fits this machine (`launcher.planning`); if absent, the family's default.
    """

    # any that the repositories offer, or "auto": the best that fits this machine; else the family's own
    quantization: str | None = None
    # a local GGUF file per backend, instead of a download; a relative path is relative to the working directory
    files: dict[str, LocalPath] = Field(default_factory=dict)
    # a LoRA per backend as a local GGUF file, instead of the family's, or where it has none
    lora_files: dict[str, LocalPath] = Field(default_factory=dict)


class HostConfig(Strict):
    """All of the host's file."""

    # a name that `trillama families` lists, or the path of a family file (`.toml`), relative to this file
    family: str = "jina-embeddings-v4"
    demo: bool = False  # make and serve the small made-up models, as `--demo --tiny` does
    notice: str | None = None  # a line that is printed at each start, and that `/v1/models` has
    host: str = "127.0.0.1"  # the address to listen on; `0.0.0.0` serves the network: set `api_keys` then
    port: Annotated[int, Field(ge=0, le=65535)] = 8080  # 0: a free one
    # the longest text, prefix included; memory grows with it. Without it: what fits, at most the family's
    max_input_tokens: Positive | None = None
    # the parent of the private folder with the sockets; without it `$XDG_RUNTIME_DIR`, else `/tmp`
    runtime_dir: LocalPath | None = None
    models: ModelSettings = ModelSettings()  # which files of the models are served
    # how llama-server is found and run; `trillama tune` finds the fastest `slots`, `threads` and `flash_attention`
    engine: EngineSettings = EngineSettings()
    backends: dict[str, BackendOptions] = Field(default_factory=dict)  # one backend's own settings
    # the second llama-servers that give the state of every token
    late_chunking: LateChunkingSettings = LateChunkingSettings()
    # when a process counts as stuck or dead, and when it is started again
    supervision: SupervisionSettings = SupervisionSettings()
    # what the proxy serves, to whom, and its limits; docs/network.md says what happens at each limit
    proxy: ProxyOptions = ProxyOptions()


@dataclass(frozen=True, slots=True)
class Settings:
    """The host's file and the family it names. `fallback`: served instead if these models cannot be fetched."""

    host: HostConfig
    family: FamilyFile
    family_file: Path
    fallback: "Settings | None" = None

    @property
    def max_input_tokens(self) -> int:
        """The longest text that is served, prefix included."""
        return self.host.max_input_tokens or self.family.max_input_tokens

    def backend(self, name: str) -> BackendOptions:
        """The settings of a backend, or of the token-level backend of the same model."""
        if name.endswith(BY_TOKEN):
            return BackendOptions(mode=Mode.ON_DEMAND, idle_s=self.host.late_chunking.idle_s)
        return self.host.backends.get(name, BackendOptions())

    def with_host(self, **changes: object) -> "Settings":
        """A copy with some of the host's settings changed."""
        return replace(self, host=self.host.model_copy(update=changes))


def load(path: Path | None, overrides: Mapping[str, object] | None = None) -> Settings:
    """Read the host's file (defaults without one); `overrides` take precedence where they are not None.

    API keys from systemd are added to those in the file. Raises ConfigError naming the file and the field.
    """
    where = path or "the arguments"
    given = {} if path is None else read_file(path)
    given |= {key: value for key, value in (overrides or {}).items() if value is not None}
    _check_reserved(given.get("proxy"), where)
    host = validated_file(HostConfig, given, where, FileKind.HOST)
    family_file = family_path(host.family, path)
    family = read_family(family_file)
    _check_agreement(host, family, where)
    return Settings(_completed(host, family), family, family_file)


def _check_reserved(proxy: object, where: Path | str) -> None:
    """Raises ConfigError for a proxy setting that only the launcher may write."""
    reserved = ProxySettings.model_fields.keys() - ProxyOptions.model_fields.keys()
    if isinstance(proxy, Mapping) and (taken := sorted(reserved & proxy.keys())):
        raise ConfigError(f"{where}: [proxy] must not set {', '.join(taken)}: it is set elsewhere in this file")


def _check_agreement(host: HostConfig, family: FamilyFile, where: Path | str) -> None:
    """Raises ConfigError if the host's file names something that the family does not have."""
    models, known = host.models, family.weights.models
    tables: Mapping[str, Collection[str]] = {
        "backends": host.backends,
        "models.files": models.files,
        "models.lora_files": models.lora_files,
    }
    for table, named in tables.items():
        if unknown := sorted(set(named) - known.keys()):
            raise ConfigError(f"{where}: {table}.{unknown[0]}: no such backend; there are {', '.join(known)}")
    if host.demo and family.name != (made_for := HostConfig.model_fields["family"].default):
        raise ConfigError(f"{where}: demo = true makes models of {made_for} only: leave out demo, or family")
    try:
        host.proxy.check(family)
    except ValueError as error:
        raise ConfigError(f"{where}: [proxy] {error}") from error


def _completed(host: HostConfig, family: FamilyFile) -> HostConfig:
    """Add systemd's API keys, and spell the quantisation as the family does."""
    from_systemd = api_keys()
    keys = {"api_keys": (*host.proxy.api_keys, *from_systemd)} if from_systemd else {}
    given = host.models.quantization
    spelled = None if given is None else "auto" if given.casefold() == "auto" else family.weights.named(given)
    models = host.models.model_copy(update={"quantization": spelled})
    return host.model_copy(update={"proxy": host.proxy.model_copy(update=keys), "models": models})


def configs_dir() -> Path:
    """The folder `configs/`: in the installed package, or next to it in a checkout."""
    installed = Path(__file__).parents[1] / "configs"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "configs"


def shipped_families() -> dict[str, Path]:
    """The family files in `configs/families/`, by their names in lower case."""
    return {path.stem.casefold(): path for path in sorted((configs_dir() / "families").glob("*.toml"))}


def read_family(path: Path) -> FamilyFile:
    """The family in that file. Raises ConfigError with every fault."""
    return validated_file(FamilyFile, read_file(path), path, FileKind.FAMILY)


def family_path(family: str, beside: Path | None) -> Path:
    """The file of a shipped family, or of a path relative to the file `beside`. Raises ConfigError."""
    if not family.endswith(".toml"):
        shipped = shipped_families()
        if family.casefold() not in shipped:
            near = difflib.get_close_matches(family.casefold(), shipped, n=1)
            raise ConfigError(
                f'family = "{family}": there is none of that name{f", but {near[0]}" if near else ""}: '
                "`trillama families` lists all; or give the path of a .toml"
            )
        return shipped[family.casefold()]
    try:
        return (beside.parent if beside else Path()) / home_path(Path(family))
    except ValueError as error:
        raise ConfigError(f"family: {error}") from error


def read_file(path: Path) -> dict[str, object]:
    """The content of a TOML file. Raises ConfigError."""
    try:
        return settings_file.read_toml(path)
    except settings_file.BadSettings as error:
        raise ConfigError(str(error)) from error


def validated_file(model: type[T], given: Mapping[str, object], where: Path | str, kind: FileKind) -> T:
    """The settings in it. Raises ConfigError with every fault, or which command takes a file of another kind."""
    try:
        return settings_file.validated_settings(model, given, where)
    except settings_file.BadSettings as error:
        raise ConfigError(mistaken_file(given, where, kind) or str(error)) from error
