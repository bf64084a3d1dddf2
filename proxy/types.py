"""The request and result that every dialect parses into and renders from, and the types of vectors and ids."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from proxy.errors import Invalid, ProxyError, invalid

Matrix = NDArray[np.float32]
Vector = NDArray[np.float32]
Ids = Sequence[int] | NDArray[np.int32]  # the token ids of one text, as the model gets them
Input = str | Sequence[int]  # a text, or token ids of the vocabulary that `token_ids` in the config names


class Encoding(StrEnum):
    FLOAT = "float"
    BASE64 = "base64"
    BINARY = "binary"
    UBINARY = "ubinary"


class Refused(NamedTuple):
    """Why an input is invalid. The error is built only when it is reported: one body may have very many."""

    reason: str
    kind: str
    given: object

    def error(self, field: str) -> Invalid:
        return invalid(field, self.reason, kind=self.kind, given=self.given)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedRequest:
    """One request of any dialect. `task`, `role` and `instruction` are as the caller wrote them; None means absent.

    The inputs in `refused`, by index, are invalid: "" stands in their place. `default_task` is the dialect's task if
    none is given; None leaves it to the server. `partial`: an input that fails does not fail the others. `late`: the
    inputs are the chunks of one document. `multivector`: a vector for each token. `client` stands for the API key;
    the caller waits for `timeout_s`.
    """

    inputs: Sequence[Input]
    refused: Mapping[int, Refused] = field(default_factory=dict)
    model: str | None = None
    task: str | None = None
    role: str | None = None
    instruction: str | None = None
    default_task: str | None = None
    dimensions: int | None = None
    normalized: bool = True
    truncate: bool = False
    partial: bool = False
    late: bool = False
    multivector: bool = False
    encodings: tuple[Encoding, ...] = (Encoding.FLOAT,)
    client: str = ""
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSize:
    """How many parameters a model has, and how many bytes its tensors take; 0 if unknown."""

    parameters: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What made a vector. Two vectors can be compared if and only if their `space` is the same.

    `digest` is that of the model's file, `lora` that of its LoRA's, if it has one.
    """

    digest: str
    quantization: str
    engine: str
    space: str
    pooling: str
    lora: str | None = None
    size: ModelSize = ModelSize()


@dataclass(frozen=True, slots=True)
class Served:
    """The vectors of the inputs that are not in `failed`, (n, n_embd), and how many tokens those have.

    `lengths` as in EmbedResult.
    """

    rows: Matrix
    tokens: int
    failed: Mapping[int, ProxyError]
    lengths: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedResult:
    """Vectors in the order of the request's inputs, shape (n, dimensions); tokens as the model processed them.

    The inputs in `failed`, by index, have an error instead of a row. Multi-vectors have a row for each token, and
    `lengths` says how many of the rows each input has. `wait_s` is until the first text was sent to an engine,
    `compute_s` from then to the last vector; both are 0 where the cache had them all.
    """

    model: str
    task: str
    prefix: str
    provenance: Provenance
    vectors: Matrix
    tokens: int
    failed: Mapping[int, ProxyError] = field(default_factory=dict)
    lengths: tuple[int, ...] | None = None
    wait_s: float = 0.0
    compute_s: float = 0.0

    @property
    def inputs(self) -> int:
        """How many inputs have vectors."""
        return len(self.vectors) if self.lengths is None else len(self.lengths)
