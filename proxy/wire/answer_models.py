"""The shapes of the responses, for the OpenAPI document only: `render` builds the responses without these models."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

Floats = Annotated[list[float], Field(description="`float`: the vector.")]
Text64 = Annotated[str, Field(description="`base64`: little-endian float32, four bytes per dimension.")]
Bits = Annotated[
    list[Annotated[int, Field(ge=-128, le=255)]],
    Field(description="`ubinary`: a bit per dimension, the most significant first; `binary`: those bytes minus 128."),
]
PackedBits = Annotated[
    str, Field(description="In RunPod's form, and with Voyage's `output_dtype`: base64 of the bytes.")
]


class ByType(BaseModel):
    """Several types at once, by name."""

    float: Floats | None = None
    base64: Text64 | None = None
    binary: Bits | PackedBits | None = None
    ubinary: Bits | PackedBits | None = None


class Usage(BaseModel):
    """Tokens as the model processed them: prefix included, after truncation; for an image, all of its prompt."""

    prompt_tokens: int
    total_tokens: int
    image_tokens: int | None = Field(None, description="Those that stand for tiles of images; with images only.")


class EmbeddingRow(BaseModel):
    object: Literal["embedding"]
    index: int = Field(description="The position in `input`. Rows come in that order.")
    embedding: Floats | Text64 | Bits | ByType


class ManyByType(BaseModel):
    """Several types at once, by name; a list has one entry per token."""

    float: list[Floats] | None = None
    base64: list[Text64] | None = None
    binary: list[Bits] | list[PackedBits] | None = None
    ubinary: list[Bits] | list[PackedBits] | None = None


class MultiRow(BaseModel):
    """With `return_multivector`: one vector per token in the order of the text, starting with the prefix's tokens."""

    object: Literal["embeddings"]
    index: int
    embeddings: list[Floats] | list[Text64] | list[Bits] | ManyByType


class InputError(BaseModel):
    code: str
    message: str


class FailedRow(BaseModel):
    """With `on_error: "partial"`: why one input failed."""

    object: Literal["embedding"]
    index: int
    error: InputError


class EmbeddingsAnswer(BaseModel):
    """One row per input, in order."""

    model: str
    object: Literal["list"]
    usage: Usage
    data: list[EmbeddingRow | MultiRow | FailedRow]


class FaultAnswer(BaseModel):
    """One field that failed validation."""

    field: str
    message: str
    type: str
    input: str


class Reason(BaseModel):
    """The error in OpenAI's format."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorAnswer(BaseModel):
    """Every error has this body. `detail` is one sentence; `errors` comes with 422."""

    detail: str
    code: str
    request_id: str
    error: Reason
    errors: list[FaultAnswer] | None = None


class SizeAnswer(BaseModel):
    """0 while it is unknown, as before the model's first start."""

    parameters: int
    bytes: int


class ProvenanceAnswer(BaseModel):
    """What produces the vectors. Two vectors can be compared if and only if their `space` is the same."""

    digest: str
    quantization: str
    engine: str
    space: str
    image_space: str | None = Field(None, description="That of images, where the model takes them.")
    size: SizeAnswer


class ModelRow(BaseModel):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    context_length: int
    hugging_face_id: str
    dimensions: int
    trained_dimensions: list[int]
    licence: str
    notice: str | None = None
    task: str
    prefix: str
    provenance: ProvenanceAnswer


class ModelsAnswer(BaseModel):
    """The family, and one name per task for clients that can set only the model."""

    object: Literal["list"]
    data: list[ModelRow]


class TokensAnswer(BaseModel):
    """Of all inputs together, prefixes included: what `usage` says once they are embedded."""

    input_tokens: int


class HealthAnswer(BaseModel):
    status: str


class SpaceAnswer(BaseModel):
    """The vector space of one backend; `unknown` before its first start."""

    space: str
    quantization: str
    images: str | None = Field(None, description="That of images, where the backend takes them.")


class ReadyAnswer(BaseModel):
    """By backend, and by node for a Front: `ready`, or the reason why it cannot serve now."""

    status: str
    backends: dict[str, str]
    nodes: dict[str, str] | None = None
    spaces: dict[str, SpaceAnswer]


class FileAnswer(BaseModel):
    """A file that is kept: an upload, or a result of a batch."""

    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    filename: str
    purpose: str
    status: str
    expires_at: int | None


class FilesAnswer(BaseModel):
    object: Literal["list"]
    data: list[FileAnswer]
    has_more: bool


class DeletedAnswer(BaseModel):
    id: str
    object: Literal["file"]
    deleted: bool


class BatchStats(BaseModel):
    total: int
    completed: int
    failed: int
    total_tokens: int


class BatchStatusAnswer(BaseModel):
    """Jina's."""

    batch_id: str
    status: Literal["pending", "processing", "completed", "failed", "cancelled"]
    stats: BatchStats
    output_url: str | None
    error_file_url: str | None
    created_at: int
    completed_at: int | None
    expires_at: int | None
    error: str | None


class BatchAnswer(BaseModel):
    """OpenAI's, with Jina's `batch_id`, `stats`, `output_url` and `error_file_url`."""

    id: str
    object: Literal["batch"]
    endpoint: str
    status: Literal["validating", "in_progress", "cancelling", "completed", "failed", "cancelled"]
    batch_id: str
    stats: BatchStats


class BatchesAnswer(BaseModel):
    object: Literal["list"]
    data: list[BatchAnswer]
    has_more: bool
