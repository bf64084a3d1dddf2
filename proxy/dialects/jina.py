"""The embeddings API of Jina, OpenAI, Voyage and NIM: one wire model whose aliases cover the names of all four."""

from collections.abc import Callable, Iterator
from typing import Literal, Self

from pydantic import AliasChoices, Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from proxy.faults import Fault, Invalid
from proxy.types import EmbedRequest, EmbedResult, Encoding
from proxy.wire import encodings as encode
from proxy.wire.answer_models import EmbeddingsAnswer
from proxy.wire.dialect import (
    Dialect,
    Dimensions,
    Encodings,
    Instruction,
    Items,
    LateChunkingField,
    ModelName,
    MultiVectorField,
    ParsedRequest,
    TaskName,
    Truncation,
    Wire,
    validated,
)
from proxy.wire.input_shapes import MESSAGES, ModalityField
from proxy.wire.inputs import input_of_message, parted
from proxy.wire.schema import with_name

_INPUT_NAMES = ("input", "content", "texts", "messages")
OutputType = Literal["float", "binary", "ubinary"]


class EmbeddingsBody(Wire):
    """Null means absent, and unknown fields are ignored."""

    inputs: Items = Field(
        validation_alias=AliasChoices(*_INPUT_NAMES),
        description='A text, `{"text": …}`, token ids (of cl100k_base, as OpenAI\'s clients send), or a list of these. '
        'A text can come in parts: `{"content": [{"type": "text", "text": …}]}`. Where the server has images: '
        '`{"image": …}`, a URL, a data URI or base64, and `{"pdf": …}`, alone.',
        examples=["hello", ["first", {"text": "second"}]],
    )
    modality: ModalityField = Field("text", description="Infinity's: with `image`, each string of `input` is an image.")
    model: ModelName | None = Field(
        None, description="The family; a suffix, `…:TASK`, names the task.", examples=[None]
    )
    task: TaskName | None = Field(
        None,
        validation_alias=AliasChoices("task", "task_type", "input_type"),
        description="What the vectors are for: it chooses the model and the prefix.",
    )
    prompt_name: TaskName | None = Field(None, description="`query` or `passage`, beside a bare `task`.")
    instruction: Instruction = None
    encodings: Encodings = Field(
        (Encoding.FLOAT,),
        validation_alias=AliasChoices("embedding_type", "encoding_type", "encoding_format", "embedding_types"),
        description="How a vector is written; several types give an object per row.",
    )
    output_dtype: OutputType = Field(
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
    late_chunking: LateChunkingField = Field(
        False,
        description="The inputs are one document: joined without a separator and computed in one context; each vector "
        "is the mean over that input's own tokens. `truncate` drops the document's tail.",
    )
    return_multivector: MultiVectorField = Field(
        False, description="A vector for each token, including the prefix's, instead of one per text; no `dimensions`."
    )

    @model_validator(mode="before")
    @classmethod
    def _in_input(cls, fields: object) -> object:
        """vLLM's and Infinity's forms as Jina's; of several names of the input the first counts, as everywhere."""
        if not isinstance(fields, dict):
            return fields
        name = next((one for one in _INPUT_NAMES if fields.get(one) is not None), None)
        if name == "messages":
            return {**fields, name: None, "input": input_of_message(fields[name])}
        if fields.get("modality") == "image" and isinstance(given := fields.get("input"), str | list):
            items = given if isinstance(given, list) else [given]
            return {**fields, "input": [{"image": one} if isinstance(one, str) else one for one in items]}
        return fields

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return with_name(super().__get_pydantic_json_schema__(core, handler), "messages", MESSAGES)

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
    return ParsedRequest(request, renderer(request.encodings, wire.output_dtype))


def renderer(encodings: tuple[Encoding, ...], output_dtype: OutputType) -> Callable[[EmbedResult], dict[str, object]]:
    """Renders results with these encodings; `output_dtype` is Voyage's choice of bits."""
    if output_dtype == "float":
        return lambda result: render(result, encodings)
    bits = (Encoding(output_dtype),)
    encoders = encode.BITS_TYPED_BASE64 if Encoding.BASE64 in encodings else None
    return lambda result: render(result, bits, encoders)


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
