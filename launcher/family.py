"""The launcher's part of a family file: its weights, what was published of them, which backend serves a task."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from launcher.errors import ConfigError

Positive = Annotated[int, Field(gt=0)]


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelSource(Strict):
    """Where one backend's weights come from: a hub repository and a file name with `{quantization}` in it."""

    repo: str
    file: str


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


class Weights(Strict):
    """The `[weights]` table of a family file."""

    architecture: str
    quantization: str
    quantizations: tuple[str, ...]
    shape: WeightsShape | None = None
    published: Published | None = None
    models: dict[str, ModelSource]


class MultiVector(Strict):
    """The `[multivector]` table: where the original keeps its per-token projector, which no GGUF has.

    `index` says which shard has `weight` (dimensions, the model's width) and `bias`; a backend's LoRA is in `adapter`,
    by the names `lora_a` and `lora_b` with `{backend}` in them.
    """

    repo: str
    dimensions: Positive
    index: str
    weight: str
    bias: str
    adapter: str
    adapter_config: str
    lora_a: Annotated[str, Field(pattern=r"\{backend\}")]
    lora_b: Annotated[str, Field(pattern=r"\{backend\}")]


class Task(BaseModel):
    """What the launcher needs of a row of the task table: which backend has to run for it, and `compare`'s prefix."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    backend: str
    prefix: str = ""


class Family(BaseModel):
    """What the launcher needs of a family file; the models' other names in the same file are the proxy's."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    licence: str
    dimensions: Positive
    max_input_tokens: Positive
    unicode_normalization: Literal["NFC", "NFKC"] | None = None
    default_task: str
    tasks: dict[str, Task]
    task_aliases: dict[str, str] = {}
    weights: Weights
    multivector: MultiVector | None = None

    def backend_of(self, task: str) -> str:
        """The backend that serves a task or an alias of one. Raises ConfigError naming the tasks there are."""
        row = self.tasks.get(self.task_aliases.get(task, task))
        if row is None:
            raise ConfigError(f"unknown task {task!r}; allowed are: {', '.join(self.tasks)}")
        return row.backend
