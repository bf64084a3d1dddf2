"""A family file, whole: what the proxy reads of it, and the launcher's own part, the weights and what was published."""

import re
import string
from typing import Annotated, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from launcher.errors import ConfigError
from proxy.contract import family as proxy_family
from proxy.contract.family import Positive, Strict

BY_TOKEN = "-tokens"  # noqa: S105 # ends the name of a model's second backend, which gives the state of every token


def _repo(name: str) -> str:
    """As the hub has it: OWNER/NAME, of letters, digits and single `-`, `_` or `.` between them."""
    if len(name) > 96 or not re.fullmatch(r"(\w+([.-]\w+)*/)?\w+([.-]\w+)*", name, re.ASCII):
        raise ValueError(f"{name!r} is not the name of a repository, such as jinaai/jina-embeddings-v4")
    return name


def _placeholders(pattern: str, allowed: str) -> set[str]:
    """Those that the pattern has. Raises ValueError for another one than that, or for a brace that is none."""
    try:
        parts = list(string.Formatter().parse(pattern))
    except ValueError as error:
        raise ValueError(f"{pattern!r}: {error}") from error
    found = {name for _, name, _, _ in parts if name is not None}
    if other := sorted(found - {allowed}):
        raise ValueError(f"{pattern!r} has {{{other[0]}}}; only {{{allowed}}} can be filled in")
    if any(style or conversion for _, _, style, conversion in parts):
        raise ValueError(f"{pattern!r}: {{{allowed}}} is written without anything else in its braces")
    return found


def _file(pattern: str) -> str:
    _placeholders(pattern, "quantization")
    if pattern.startswith("/") or ".." in pattern.split("/") or not pattern.endswith(".gguf"):
        raise ValueError(f"{pattern!r} is not the name of a .gguf file in its repository")
    return pattern


def _tensor(pattern: str) -> str:
    if not _placeholders(pattern, "backend"):
        raise ValueError(f"{pattern!r} has no {{backend}}: each backend has a tensor of its own")
    return pattern


Repo = Annotated[str, AfterValidator(_repo)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]  # ends up in names of files
BackendName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,19}$")]  # and in the path of a socket


class ModelSource(Strict):
    """Where one backend's weights come from: a hub repository and a file name with `{quantization}` in it."""

    repo: Repo
    file: Annotated[str, AfterValidator(_file)]


class WeightsShape(Strict):
    """The sizes of a transformer that decide its memory; `kv_length` is key-value heads times their size."""

    layers: Positive
    embedding_length: Positive
    feed_forward_length: Positive
    kv_length: Positive
    vocabulary: Positive


class PublishedQuantization(Strict):
    """What was published of one quantisation: its file's size, its speed, and NDCG@5 on each benchmark."""

    file_gib: Annotated[float, Field(gt=0)]
    tokens_per_s: Annotated[float, Field(gt=0)]
    ndcg_at_5: Annotated[tuple[float, ...], Field(min_length=1)]


class Published(Strict):
    """Published figures of a family, with where they come from."""

    source: str
    benchmarks: tuple[str, ...]
    quantizations: dict[str, PublishedQuantization]

    @model_validator(mode="after")
    def _a_figure_for_each_benchmark(self) -> Self:
        for name, figures in self.quantizations.items():
            if len(figures.ndcg_at_5) != len(self.benchmarks):
                raise ValueError(
                    f"quantizations.{name}.ndcg_at_5 has {len(figures.ndcg_at_5)} figures for "
                    f"{len(self.benchmarks)} benchmarks"
                )
        return self


class Weights(Strict):
    """The `[weights]` table of a family file."""

    architecture: str
    quantization: str
    quantizations: Annotated[tuple[Name, ...], Field(min_length=1)]
    shape: WeightsShape | None = None
    published: Published | None = None
    models: Annotated[dict[BackendName, ModelSource], Field(min_length=1)]

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        if self.quantization not in self.quantizations:
            raise ValueError(f"quantization = {self.quantization!r} is none of {', '.join(self.quantizations)}")
        for backend, source in self.models.items():
            if backend.endswith(BY_TOKEN):
                raise ValueError(f"models.{backend}: a name must not end in {BY_TOKEN}, as those of second backends do")
            if len(self.quantizations) > 1 and not _placeholders(source.file, "quantization"):
                raise ValueError(
                    f"models.{backend}.file = {source.file!r} has no {{quantization}}, and there are several"
                )
        return self

    def named(self, quantization: str) -> str:
        """The quantization as it is written in file names: the case in which somebody writes it does not matter."""
        return next((one for one in self.quantizations if one.casefold() == quantization.casefold()), quantization)


class MultiVector(proxy_family.MultiVector):
    """The `[multivector]` table: where the original keeps its per-token projector, which no GGUF has.

    `index` says which shard has `weight` (dimensions, the model's width) and `bias`; a backend's LoRA is in `adapter`,
    by the names `lora_a` and `lora_b` with `{backend}` in them.
    """

    model_config = ConfigDict(extra="forbid")

    repo: Repo
    index: str
    weight: str
    bias: str
    adapter: str
    adapter_config: str
    lora_a: Annotated[str, AfterValidator(_tensor)]
    lora_b: Annotated[str, AfterValidator(_tensor)]


class Family(proxy_family.Family):
    """A family file, whole."""

    model_config = ConfigDict(extra="forbid")

    name: Name
    weights: Weights
    multivector: MultiVector | None = None

    @model_validator(mode="after")
    def _every_task_has_its_backend(self) -> Self:
        self.check_backends(self.weights.models.keys())
        return self

    def backend_of(self, task: str) -> str:
        """The backend that serves a task or an alias of one. Raises ConfigError naming the tasks there are."""
        row = self.tasks.get(self.task_aliases.get(task, task))
        if row is None:
            raise ConfigError(f"unknown task {task!r}; allowed are: {', '.join(self.tasks)}")
        return row.backend
