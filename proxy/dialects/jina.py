"""The embeddings API of Jina, OpenAI, Voyage and NIM: one wire model whose aliases cover the names of all four."""

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import AliasChoices, Field, model_validator

from proxy.faults import Fault, Invalid
from proxy.types import EmbedRequest, EmbedResult, Encoding
from proxy.wire import encodings as encode
from proxy.wire.answer_models import EmbeddingsAnswer
from proxy.wire.dialect import (
    Dialect,
    Dimensions,
    Encodings,
    Items,
    ModelName,
    MultiVectorField,
    ParsedRequest,
    TaskName,
    Truncation,
    Wire,
    validated,
)
from proxy.wire.inputs import parted

MAX_INSTRUCTION = 2048  # characters; each text of a request gets it


class EmbeddingsBody(Wire):
    """Null means absent, and unknown fields are ignored."""

    inputs: Items = Field(
        validation_alias=AliasChoices("input", "content", "texts"),
        description='A text, `{"text": …}`, token ids (of cl100k_base, as OpenAI\'s clients send), or a list of these. '
        'A text can come in parts: `{"content": [{"type": "text", "text": …}]}`. Where the server has images: '
        '`{"image": …}`, a URL, a data URI or base64.',
        examples=["hello", ["first", {"text": "second"}]],
    )
    model: ModelName | None = Field(
        None, description="The family; a suffix as in `…:retrieval.query` names the task.", examples=[None]
    )
    task: TaskName | None = Field(
        None,
        validation_alias=AliasChoices("task", "task_type", "input_type"),
        description="What the vectors are for: it chooses the model and the prefix.",
    )
    prompt_name: TaskName | None = Field(None, description="`query` or `passage`, beside a bare `task`.")
    instruction: Annotated[str, Field(max_length=MAX_INSTRUCTION)] | None = Field(
        None,
        description="What the texts are embedded for, in words, in place of the task's own: for tasks whose prefix has "
        "an instruction, such as Qwen3-Embedding's queries.",
        examples=[None],
    )
    encodings: Encodings = Field(
        (Encoding.FLOAT,),
        validation_alias=AliasChoices("embedding_type", "encoding_type", "encoding_format", "embedding_types"),
        description="How a vector is written; several types give an object per row.",
    )
    output_dtype: Literal["float", "binary", "ubinary"] = Field(
        "float", description="Voyage's name for bits; beside `base64` they are an array of int8 or uint8 in base64."
    )
    dimensions: Dimensions | None = Field(
        None,
        validation_alias=AliasChoices("dimensions", "output_dimension", "output_dimensionality"),
        description="How many of a vector's first dimensions to return; absent: all.",
    )
    normalized: bool = Field(True, description="Each vector has length 1; false: the model's output, sliced.")
    truncate: Truncation = Field(
        False,
        validation_alias=AliasChoices("truncate", "truncation"),
        description="Drop the tail of a text that is too long, instead of rejecting it.",
    )
    on_error: Literal["fail", "partial"] = Field(
        "fail", description="`partial`: an input that fails by itself has an `error` in its row, the others are served."
    )
    late_chunking: bool = Field(
        False,
        description="The inputs are one document: joined without a separator and computed in one context; each vector "
        "is the mean over that input's own tokens. `truncate` drops the document's tail.",
    )
    return_multivector: MultiVectorField = Field(
        False, description="A vector for each token, including the prefix's, instead of one per text; no `dimensions`."
    )

    @model_validator(mode="after")
    def _supported(self) -> Self:
        if self.late_chunking and self.return_multivector:
            message = "cannot be combined with return_multivector: tokens have no mean"
            raise Invalid(Fault(field="late_chunking", message=message, type="unsupported", input="true"))
        return self


def parse(body: object) -> ParsedRequest:
    """The request in a body of Jina's or OpenAI's client. Raises Invalid with every fault found."""
    wire = validated(EmbeddingsBody, body)
    request = embed_request(wire)
    if wire.output_dtype == "float":
        return ParsedRequest(request, lambda result: render(result, request.encodings))
    bits = (Encoding(wire.output_dtype),)
    encoders = encode.BITS_TYPED_BASE64 if Encoding.BASE64 in request.encodings else None
    return ParsedRequest(request, lambda result: render(result, bits, encoders))


def embed_request(wire: EmbeddingsBody) -> EmbedRequest:
    """The body as an EmbedRequest."""
    inputs, refused = parted(wire.inputs)
    return EmbedRequest(
        inputs=inputs,
        refused=refused,
        model=wire.model,
        task=wire.task,
        role=wire.prompt_name,
        instruction=wire.instruction,
        dimensions=wire.dimensions,
        normalized=wire.normalized,
        truncate=wire.truncate,
        partial=wire.on_error == "partial",
        late=wire.late_chunking,
        multivector=wire.return_multivector,
        encodings=wire.encodings,
    )


def render(
    result: EmbedResult, encodings: tuple[Encoding, ...], encoders: encode.Encoders | None = None
) -> dict[str, object]:
    """The response body, with numpy arrays for orjson. An input without a vector has its error instead."""
    embeddings: Iterator[object]
    if result.lengths is None:
        name, embeddings = "embedding", iter(encode.encode(result.vectors, encodings, encoders))
    else:  # a vector per token: Jina writes both words in the plural
        name = "embeddings"
        embeddings = iter(encode.encode_groups(result.vectors, result.lengths, encodings, encoders))
    return {
        "model": result.model,
        "object": "list",
        "usage": _usage(result),
        "data": [
            {"object": "embedding", "index": index, "error": {"code": failed.code, "message": failed.message}}
            if (failed := result.failed.get(index))
            else {"object": name, "index": index, name: next(embeddings)}
            for index in range(result.inputs + len(result.failed))
        ],
    }


def _usage(result: EmbedResult) -> dict[str, int]:
    of_images = {} if result.image_tokens is None else {"image_tokens": result.image_tokens}
    return {"prompt_tokens": result.tokens, "total_tokens": result.tokens, **of_images}


DIALECTS = (
    Dialect(
        paths=(
            "/v1/embeddings",
            "/embeddings",
            "/v2/{endpoint}/openai/v1/embeddings",  # RunPod's
            "/openai/deployments/{model}/embeddings",  # Azure's, with any `api-version`
            "/openai/v1/embeddings",
            "/v1beta/openai/embeddings",  # Gemini's
        ),
        summary="Embed texts: the API of Jina and of OpenAI",
        parse=parse,
        body=EmbeddingsBody,
        answer=EmbeddingsAnswer,
    ),
)
