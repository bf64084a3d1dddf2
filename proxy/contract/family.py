"""The proxy's part of a family file, read once, frozen; `launcher.settings.family` adds the launcher's part."""

from collections.abc import Collection
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(gt=0)]
UnicodeForm = Literal["NFC", "NFKC"]


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TaskSettings(Strict):
    """One row of the task table: which backend serves it, and the prefix the model was trained with."""

    backend: str
    prefix: str


class MultiVector(BaseModel):
    """The length of each vector of a multi-vector; the rest of the table belongs to the launcher."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    dimensions: Positive


class Family(BaseModel):
    """What the proxy needs of a family file; `[weights]` in the same file belongs to the launcher."""

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

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        for name, size in enumerate(self.trained_dimensions):
            if size > self.dimensions:
                raise ValueError(f"trained_dimensions.{name} = {size} is more than dimensions = {self.dimensions}")
        self.check_task(self.default_task, "default_task")
        for alias, task in self.task_aliases.items():
            if task not in self.tasks:
                raise ValueError(
                    f"task_aliases.{alias} names the task {task!r}, but there are: {', '.join(self.tasks)}"
                )
        self.check_aliases(self.model_aliases)
        return self

    def check_task(self, task: str, where: str) -> None:
        """Raises ValueError unless `task` is a task or an alias of one."""
        if task not in {**self.task_aliases, **self.tasks}:
            raise ValueError(f"{where} names the task {task!r}, but there are: {', '.join(self.tasks)}")

    def check_aliases(self, aliases: dict[str, str]) -> None:
        """Raises ValueError for an alias of another model than this one."""
        for alias, model in aliases.items():
            if model != self.name:
                raise ValueError(f"model_aliases.{alias} names the model {model!r}, but {self.name!r} is served")

    def check_backends(self, backends: Collection[str]) -> None:
        """Raises ValueError for a task whose backend does not exist."""
        for task, row in self.tasks.items():
            if row.backend not in backends:
                raise ValueError(
                    f"tasks.{task}.backend names {row.backend!r}, but there are: {', '.join(backends) or 'none'}"
                )
