"""Cohere's `/v2/embed`, and the `/v1/embed` of its older client.

Sources: the package `cohere` 7.3 (fields, both answers, `message` of an error; `binary` is "packed signed, -128 to 127"
and `ubinary` "0 to 255"). That `binary` is the byte minus 128, and not its int8 view, follows Voyage's documentation
and measurements of Jina's API; Cohere does not say. Distances between two such vectors are equal either way.
"""

import uuid
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    Field,
    GetJsonSchemaHandler,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from proxy.errors import ProxyError
from proxy.faults import invalid
from proxy.types import EmbedRequest, EmbedResult, Encoding, ImageFacts, ImageSource
from proxy.wire import encodings as encode
from proxy.wire.answer_models import Floats
from proxy.wire.dialect import (
    Dialect,
    Dimensions,
    Encodings,
    Inputs,
    Instruction,
    ModelName,
    ParsedRequest,
    RenderedError,
    TaskName,
    Truncation,
    Wire,
    validated,
)
from proxy.wire.input_shapes import IMAGE_LIST
from proxy.wire.schema import with_name


def _refused(_: object) -> object:
    raise ValueError("is not supported")


_INPUT_NAMES = ("texts", "inputs", "images")
Unsupported = Annotated[object, AfterValidator(_refused), WithJsonSchema({"type": "null"})]


def _task_of(value: object) -> object:
    """Images are what searches find, as documents are."""
    return "search_document" if value == "image" else value


class CohereBody(Wire):
    """One of `texts`, `inputs` and `images`.

    The types `int8` and `uint8` are not supported: they would need the value ranges of a whole collection.
    """

    inputs: Inputs = Field(validation_alias=AliasChoices(*_INPUT_NAMES), examples=[["first", "second"]])
    model: ModelName | None = Field(None, examples=[None])
    input_type: Annotated[TaskName | None, BeforeValidator(_task_of)] = Field(
        None, description="A task; `image` is `search_document`."
    )
    instruction: Instruction = None
    encodings: Encodings = Field((Encoding.FLOAT,), validation_alias="embedding_types")
    truncate: Truncation = Field(True, description="START is not supported.")
    output_dimension: Dimensions | None = None
    max_tokens: Unsupported = Field(None, description="Not supported: refused.")

    @model_validator(mode="before")
    @classmethod
    def _in_inputs(cls, fields: object) -> object:
        """Images as inputs; the one name that a body may have is `inputs` then."""
        if not isinstance(fields, dict) or (images := fields.get("images")) is None:
            return fields
        if names := [name for name in _INPUT_NAMES[:2] if fields.get(name) is not None]:
            raise invalid("images", f"stands beside {names[0]}: send one of them", kind="unsupported")
        if not isinstance(images, list) or not all(isinstance(one, str) for one in images):
            raise invalid("images", "must be a list of strings: data URIs", given=images)
        return {**fields, "images": None, "inputs": [{"image": one} for one in images]}

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return with_name(super().__get_pydantic_json_schema__(core, handler), "images", IMAGE_LIST)


class BilledUnits(BaseModel):
    """`image_tokens` stand for tiles of images; all other tokens are in `input_tokens`."""

    input_tokens: int
    images: int | None = None
    image_tokens: int | None = None


class CohereImage(BaseModel):
    """An image as it was sent; `bit_depth`: of a pixel."""

    width: int
    height: int
    format: str
    bit_depth: int


class ApiVersion(BaseModel):
    version: Literal["1", "2"]


class Meta(BaseModel):
    api_version: ApiVersion
    billed_units: BilledUnits


class Columns(BaseModel):
    """The vectors by type, each in the order of the texts."""

    float: list[Floats] | None = None
    base64: list[str] | None = None
    binary: list[list[int]] | None = None
    ubinary: list[list[int]] | None = None


class CohereAnswer(BaseModel):
    id: str
    embeddings: Columns
    texts: list[str]
    images: list[CohereImage] | None = None
    meta: Meta
    response_type: Literal["embeddings_by_type"]


class CohereFloatsAnswer(BaseModel):
    """With `embedding_types`, as from `/v2/embed`; else bare vectors."""

    id: str
    embeddings: list[Floats] | Columns
    texts: list[str]
    images: list[CohereImage] | None = None
    meta: Meta
    response_type: Literal["embeddings_floats", "embeddings_by_type"]


class CohereError(BaseModel):
    id: str
    message: str


def parse(body: object) -> ParsedRequest:
    """The request in a body of `/v2/embed`. Raises Invalid with every fault found."""
    request = _request_of(validated(CohereBody, body))
    return ParsedRequest(request, lambda result: _by_type(request, result, "2"))


def parse_v1(body: object) -> ParsedRequest:
    """The request in a body of `/v1/embed`: without types its answer has bare vectors. Raises Invalid."""
    wire = validated(CohereBody, body)
    request = _request_of(wire)
    if "encodings" in wire.model_fields_set:
        return ParsedRequest(request, lambda result: _by_type(request, result, "1"))
    floats = {"response_type": "embeddings_floats"}
    return ParsedRequest(
        request, lambda result: {**_common(request, result, "1"), "embeddings": list(result.vectors), **floats}
    )


def render_error(error: ProxyError, request_id: str) -> RenderedError:
    """An error in Cohere's format."""
    return RenderedError(error.status, {"id": request_id, "message": error.message})


def _request_of(wire: CohereBody) -> EmbedRequest:
    return EmbedRequest(
        inputs=wire.inputs,
        model=wire.model,
        task=wire.input_type,
        instruction=wire.instruction,
        dimensions=wire.output_dimension,
        truncate=wire.truncate,
        encodings=wire.encodings,
    )


def _by_type(request: EmbedRequest, result: EmbedResult, version: str) -> dict[str, object]:
    columns = encode.encode_columns(result.vectors, request.encodings)
    return {**_common(request, result, version), "embeddings": columns, "response_type": "embeddings_by_type"}


def _common(request: EmbedRequest, result: EmbedResult, version: str) -> dict[str, object]:
    """`texts` is empty for inputs that are not all text."""
    texts = [one for one in request.inputs if isinstance(one, str)]
    return {
        "id": str(uuid.uuid4()),
        "texts": texts if len(texts) == len(request.inputs) else [],
        **({"images": [_described(one) for one in result.images]} if result.images else {}),
        "meta": {"api_version": {"version": version}, "billed_units": _billed(request, result)},
    }


def _described(image: ImageFacts) -> dict[str, object]:
    return {**image._asdict(), "format": image.format.lower()}


def _billed(request: EmbedRequest, result: EmbedResult) -> dict[str, int]:
    if result.image_tokens is None:
        return {"input_tokens": result.tokens}
    images = sum(isinstance(one, ImageSource) for one in request.inputs)
    tokens = result.image_tokens
    return {"input_tokens": result.tokens - tokens, "images": images, "image_tokens": tokens}


DIALECTS = (
    Dialect(
        paths=["/v2/embed"],
        summary="Embed texts: Cohere",
        parse=parse,
        body=CohereBody,
        answer=CohereAnswer,
        render_error=render_error,
        error=CohereError,
    ),
    Dialect(
        paths=["/v1/embed"],
        summary="Embed texts: Cohere's older API",
        parse=parse_v1,
        body=CohereBody,
        answer=CohereFloatsAnswer,
        render_error=render_error,
        error=CohereError,
    ),
)
