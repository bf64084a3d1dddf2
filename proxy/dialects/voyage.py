"""Voyage's `/v1/multimodalembeddings`; its texts are at `/v1/embeddings`, in Jina's dialect.

Source: the package `voyageai` 0.5 (path, fields, parts, usage). Voyage's own models read several parts as one
document; these models have no prompt for that, so an input has texts or one image.
"""

from typing import Literal

from pydantic import BaseModel, Field

from proxy.contract.images import TILE_PIXELS
from proxy.dialects import jina
from proxy.types import EmbedRequest, EmbedResult, Encoding
from proxy.wire.answer_models import EmbeddingRow
from proxy.wire.dialect import (
    Dialect,
    Dimensions,
    Encodings,
    Inputs,
    Instruction,
    ModelName,
    ParsedRequest,
    TaskName,
    Truncation,
    Wire,
    validated,
)


class VoyageBody(Wire):
    """Each of the `inputs` is one text, in parts, or one image."""

    inputs: Inputs = Field(examples=[[{"content": [{"type": "text", "text": "hello"}]}]])
    model: ModelName | None = Field(None, examples=[None])
    input_type: TaskName | None = None
    instruction: Instruction = None
    truncation: Truncation = True
    encodings: Encodings = Field((Encoding.FLOAT,), validation_alias="encoding_format")
    output_dtype: jina.OutputType = "float"
    output_dimension: Dimensions | None = None


class VoyageUsage(BaseModel):
    """`image_pixels` are those that the model sees, after it was resized; `text_tokens` all tokens but its tiles."""

    text_tokens: int
    image_pixels: int
    video_pixels: int = Field(description="0: there are no videos.")
    total_tokens: int


class VoyageAnswer(BaseModel):
    """One row per input, in order."""

    object: Literal["list"]
    data: list[EmbeddingRow]
    model: str
    usage: VoyageUsage


def parse(body: object) -> ParsedRequest:
    """The request in a body of Voyage's client. Raises Invalid with every fault found."""
    wire = validated(VoyageBody, body)
    request = EmbedRequest(
        inputs=wire.inputs,
        model=wire.model,
        task=wire.input_type,
        instruction=wire.instruction,
        dimensions=wire.output_dimension,
        truncate=wire.truncation,
        encodings=wire.encodings,
    )
    render = jina.renderer(wire.encodings, wire.output_dtype)
    return ParsedRequest(request, lambda result: {**render(result), "usage": _usage_of(result)})


def _usage_of(result: EmbedResult) -> dict[str, int]:
    tiles = result.image_tokens or 0
    return {
        "text_tokens": result.tokens - tiles,
        "image_pixels": tiles * TILE_PIXELS,
        "video_pixels": 0,
        "total_tokens": result.tokens,
    }


DIALECTS = (
    Dialect(
        paths=["/v1/multimodalembeddings"],
        summary="Embed texts and images: Voyage",
        parse=parse,
        body=VoyageBody,
        answer=VoyageAnswer,
    ),
)
