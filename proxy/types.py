"""The request and result that every dialect parses into and renders from, and the types of vectors and ids."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

import numpy as np
import pybase64
from numpy.typing import NDArray

from proxy.errors import ProxyError
from proxy.faults import Invalid, invalid
from proxy.telemetry.timing import Timing
from proxy.telemetry.trace_context import TraceContext

Matrix = NDArray[np.float32]
Vector = NDArray[np.float32]
Ids = Sequence[int] | NDArray[np.int32]  # the token ids of one text, as the model gets them
FLOAT_BYTES = 4  # of a value of a Matrix
MIN_RETRY_AFTER_S, MAX_RETRY_AFTER_S = 2, 60


@dataclass(frozen=True, slots=True)
class ImageSource:
    """An image as the user named it: the URL of a file, a data URI, or the file's bytes, also as base64.

    Whatever a dialect calls it, this is how it passes an image on; see `proxy.images.sources` for what is read.
    A `pdf` is named in the same ways, and each of its pages is an image; it is the only input of its request.
    """

    given: str | bytes
    pdf: bool = False

    @property
    def item(self) -> dict[str, str]:
        """As a client writes it in JSON, in Jina's form."""
        text = self.given if isinstance(self.given, str) else pybase64.b64encode_as_string(self.given)
        return {"pdf" if self.pdf else "image": text}


TextInput = str | Sequence[int]  # a text, or token ids of the vocabulary that `token_ids` in the config names
Input = TextInput | ImageSource


class ImageFacts(NamedTuple):
    """What a client's image file has: its size in pixels, its format as Pillow calls it, and bits for a pixel."""

    width: int
    height: int
    format: str
    bit_depth: int


@dataclass(frozen=True, slots=True)
class Picture:
    """An image as the model gets it: a file with exactly the pixels that the model is to see, as base64.

    It is `tokens` tiles for the model. Images with equal pixels, and only those, have equal digests. `facts` are those
    of the file that it was made from.
    """

    file: bytes
    tokens: int
    digest: bytes
    facts: ImageFacts


def client_of(key: str) -> str:
    """What stands for an API key: the key itself goes no further than the check."""
    written = key.encode(errors="surrogateescape")  # a header can hold bytes that are not text
    return hashlib.blake2b(written, digest_size=8).hexdigest()


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
    the caller waits for `timeout_s`. `bulk`: it is in no hurry, however small it is. `request_id` is the one of the
    log and the answer's headers, `trace` the trace that it is part of.
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
    bulk: bool = False
    request_id: str = ""
    trace: TraceContext | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedLimits:
    """What one request may ask for."""

    items: int
    input_tokens: int
    dimensions: int
    seconds: float

    def check(self, request: EmbedRequest) -> None:
        """Raises Invalid for a request that asks for what is never served."""
        if not request.inputs:
            raise invalid("input", "must have at least one text", kind="too_short", given="[]")
        if len(request.inputs) > self.items:
            raise invalid("input", f"{len(request.inputs)} texts; at most {self.items}", kind="too_long")
        if request.refused and not request.partial:
            first = min(request.refused)
            raise request.refused[first].error(f"input.{first}")
        if request.dimensions is not None and not 1 <= request.dimensions <= self.dimensions:
            message = f"must be from 1 to {self.dimensions}"
            raise invalid("dimensions", message, kind="out_of_range", given=request.dimensions)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceLoad:
    """The tokens that wait, and how many are computed in a second; 0 if unknown."""

    queue_tokens: int
    tokens_per_s: float

    @property
    def retry_after_s(self) -> int:
        """When what was refused for lack of memory may find room: about half of what waits is computed then."""
        half_s = self.queue_tokens / 2 / self.tokens_per_s if self.tokens_per_s else 0.0
        return math.ceil(min(MAX_RETRY_AFTER_S, max(MIN_RETRY_AFTER_S, half_s)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyReport:
    """Whether requests are served now; for each backend, and each node of a Front, `ready` or why it is not.

    A Front with API keys has how many nodes are `ready` and `not ready` in place of their names.
    """

    ready: bool
    backends: Mapping[str, str]
    nodes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSize:
    """How many parameters a model has, and how many bytes its tensors take; 0 if unknown."""

    parameters: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What made a vector. Two vectors can be compared if and only if their `space` is the same.

    `digest` is that of the model's file, `lora` that of its LoRA's, if it has one. Images have an `image_space`, if the
    model takes them: their vectors can be compared with each other if that is the same, and with texts of this model.
    """

    digest: str
    quantization: str
    engine: str
    space: str
    pooling: str
    lora: str | None = None
    size: ModelSize = ModelSize()
    image_space: str | None = None


@dataclass(frozen=True, slots=True)
class Served:
    """The vectors of the inputs that are not in `failed`, (n, n_embd), and how many tokens those have.

    `lengths`, `image_tokens` and `images` as in EmbedResult.
    """

    rows: Matrix
    tokens: int
    failed: Mapping[int, ProxyError]
    lengths: tuple[int, ...] | None = None
    image_tokens: int | None = None
    images: tuple[ImageFacts, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedResult:
    """Vectors in the order of the request's inputs, shape (n, dimensions); tokens as the model processed them.

    The inputs in `failed`, by index, have an error instead of a row. Multi-vectors have a row for each token, and
    `lengths` says how many of the rows each input has. `image_tokens` are those of the tokens that stand for tiles of
    images; None if no input is an image. `images` has one for each that was embedded, in order; a Front knows none.
    `timing` is empty where the cache had them all, and in a Front.
    """

    model: str
    task: str
    prefix: str
    provenance: Provenance
    vectors: Matrix
    tokens: int
    failed: Mapping[int, ProxyError] = field(default_factory=dict)
    lengths: tuple[int, ...] | None = None
    image_tokens: int | None = None
    images: tuple[ImageFacts, ...] = ()
    timing: Timing = field(default_factory=Timing, compare=False)

    @property
    def inputs(self) -> int:
        """How many inputs have vectors."""
        return len(self.vectors) if self.lengths is None else len(self.lengths)
