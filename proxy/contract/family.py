"""The proxy's part of a family file, read once, frozen; `launcher.settings.family` adds the launcher's part."""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator


def _whole_number(given: object) -> object:
    """Raises ValueError for what pydantic takes for a number: text, and `true` for 1."""
    if not isinstance(given, bool | str):
        return given
    raise ValueError("must be a whole number")


def check_no_table(given: object) -> object:
    """Raises ValueError for a table where a text is expected: TOML takes a name with a dot for the name of a table."""
    if not isinstance(given, Mapping):
        return given
    raise ValueError(f"has {next(iter(given), 'nothing')} in it: a name with a dot must be in quotes")


Positive = Annotated[int, Field(gt=0), BeforeValidator(_whole_number)]
AliasOf = Annotated[str, BeforeValidator(check_no_table)]
UnicodeForm = Literal["NFC", "NFKC"]
Pooling = Literal["mean", "cls", "last"]
Words = Literal["engine", "original"]

INSTRUCTION = "{instruction}"  # in a task's prefix: where the request's instruction is put
_PLACEHOLDER = re.compile(r"\{\s*([^\W\d]\w*)\s*\}")  # of a template, as model cards have it: `{task_description}`


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TaskSettings(Strict):
    """One row of the task table: which backend serves it, and the prefix the model was trained with."""

    backend: str  # the backend that serves the task
    # what the model was trained to see before the text; with `{instruction}` where requests may give one
    prefix: str
    instruction: str | None = None  # what replaces `{instruction}` for a request that gives none

    @model_validator(mode="before")
    @classmethod
    def _check_quotes(cls, given: object) -> object:
        if isinstance(given, Mapping):
            check_no_table({name: value for name, value in given.items() if isinstance(value, Mapping)} or None)
        return given

    @model_validator(mode="after")
    def _check_instruction(self) -> Self:
        for found in _PLACEHOLDER.finditer(self.prefix):
            if found[0] != INSTRUCTION:
                raise ValueError(f"has {found[0]} in its prefix, but only {INSTRUCTION} is filled in")
        if (INSTRUCTION in self.prefix) != (self.instruction is not None):
            lacking = "instruction" if self.instruction is None else f"{INSTRUCTION} in its prefix"
            raise ValueError(f"has no {lacking}: a task has both, or neither")
        return self

    @property
    def whole_prefix(self) -> str:
        """The prefix with the task's own instruction."""
        return self.prefix.replace(INSTRUCTION, self.instruction or "")


class RopeScaling(Strict):
    """How positions are scaled, for texts longer than the model was trained with; llama-server's `--rope-scaling`."""

    type: Literal["linear", "yarn"]  # the method
    freq_scale: Annotated[float, Field(ge=0.001, le=1)]  # 0.25: texts may be four times as long


class VectorRules(BaseModel):
    """How a model makes a vector of a text; the rest of `[weights]` belongs to the launcher."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    # how the states of a text's tokens become its vector: their mean, the first one, or the last one
    pooling: Pooling = "mean"
    causal: bool = True  # whether a token sees only those before it; `false`: it sees the whole text
    rope_scaling: RopeScaling | None = None  # for texts longer than the model was trained with
    # `layer_norm`: applied to a vector before it is truncated to fewer `dimensions`, as for nomic-embed-text-v1.5
    sliced_after: Literal["layer_norm"] | None = None

    @property
    def can_pool_images(self) -> bool:
        """Whether a llama-server's vector of an image can be right: a mean over tokens that see only those before."""
        return self.pooling == "mean" and self.causal

    @model_validator(mode="after")
    def _sees_the_text(self) -> Self:
        if self.pooling == "cls" and self.causal:
            raise ValueError('pooling = "cls" needs causal = false: else the first token sees nothing of the text')
        return self


class TokenizerRules(Strict):
    """How a text is tokenised."""

    # `engine`: llama.cpp's tokens; `original`: the original tokenizer's, even where llama.cpp's differ
    words: Words = "engine"


class MultiVector(BaseModel):
    """The length of each vector of a multi-vector; the rest of the table belongs to the launcher."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    dimensions: Positive  # numbers of each vector of a multi-vector


class Family(BaseModel):
    """What the proxy needs of a family file; `[weights]` in the same file belongs to the launcher."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str  # the name that clients use as `model`
    owned_by: str  # as `/v1/models` says it
    hugging_face_id: str  # as `/v1/models` says it
    licence: str  # of the models: printed before a download
    dimensions: Positive  # numbers of a whole vector
    trained_dimensions: tuple[Positive, ...]  # the sizes that the model was trained for; others work less well
    max_input_tokens: Positive  # the longest text that the model is served with, prefix included
    # what the original's tokenizer does first, and llama.cpp leaves out
    unicode_normalization: UnicodeForm | None = None
    default_task: str  # of a request that names none
    tasks: dict[Annotated[str, Field(min_length=1)], TaskSettings]  # what serves a task
    task_aliases: dict[str, AliasOf] = {}  # other names for a task
    model_aliases: dict[str, AliasOf] = {}  # other names for the model
    # where the original keeps its projector of multi-vectors, which no GGUF file has
    multivector: MultiVector | None = None
    weights: VectorRules = VectorRules()  # how the models make a vector
    tokenizer: TokenizerRules = TokenizerRules()  # which tokens a text becomes

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        if faults := tuple(self._faults()):
            raise ValueError(*faults)
        return self

    def _faults(self) -> Iterator[str]:
        """Every name or size that contradicts another."""
        for name, size in enumerate(self.trained_dimensions):
            if size > self.dimensions:
                yield f"trained_dimensions.{name} = {size} is more than dimensions = {self.dimensions}"
        yield from self._task_faults(self.default_task, "default_task")
        for alias, task in self.task_aliases.items():
            if alias in self.tasks and alias != task:
                yield f"task_aliases.{alias} is a task itself, with a prefix of its own"
            if task not in self.tasks:
                yield f"task_aliases.{alias} names the task {task!r}, but there are: {', '.join(self.tasks)}"
        yield from self._alias_faults(self.model_aliases)

    def check_task(self, task: str, where: str) -> None:
        """Raises ValueError unless `task` is a task or an alias of one."""
        _raise_first(self._task_faults(task, where))

    def check_aliases(self, aliases: Mapping[str, str]) -> None:
        """Raises ValueError for an alias of another model than this one, by whatever name of it."""
        _raise_first(self._alias_faults(aliases))

    def check_backends(self, backends: Collection[str]) -> None:
        """Raises ValueError for a task whose backend does not exist."""
        _raise_first(self._backend_faults(backends))

    def _task_faults(self, task: str, where: str) -> Iterator[str]:
        if task not in {**self.task_aliases, **self.tasks}:
            yield f"{where} names the task {task!r}, but there are: {', '.join(self.tasks)}"

    def _alias_faults(self, aliases: Mapping[str, str]) -> Iterator[str]:
        for alias, model in aliases.items():
            if model != self.name and self.model_aliases.get(model) != self.name:
                yield f"model_aliases.{alias} names the model {model!r}, but {self.name!r} is served"

    def _backend_faults(self, backends: Collection[str]) -> Iterator[str]:
        for task, row in self.tasks.items():
            if row.backend not in backends:
                yield f"tasks.{task}.backend names {row.backend!r}, but there are: {', '.join(backends) or 'none'}"


def _raise_first(faults: Iterator[str]) -> None:
    if fault := next(faults, None):
        raise ValueError(fault)
