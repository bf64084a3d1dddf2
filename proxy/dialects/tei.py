"""Hugging Face's text-embeddings-inference: `/embed`, also served at `/`, and `/info`.

Sources: router/src/http/types.rs of huggingface/text-embeddings-inference and the errors in its API examples; the
`feature_extraction` of the package huggingface_hub 2.4, which posts to the base address itself.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, Field, RootModel, model_validator

from proxy.errors import InputTooLong, ProxyError
from proxy.faults import invalid
from proxy.types import EmbedRequest, Provenance
from proxy.wire.answer_models import Floats
from proxy.wire.dialect import (
    Dialect,
    Dimensions,
    Inputs,
    Instruction,
    ParsedRequest,
    RenderedError,
    TaskName,
    Wire,
    validated,
)

ErrorType = Literal["Validation", "Overloaded", "Unhealthy", "Backend"]


POOLING_NAMES = {"last": "last_token"}  # TEI's own name, where it is another


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


_Side = Literal["left", "right"]  # in any case
Direction = Annotated[_Side, BeforeValidator(_lower, json_schema_input_type=_Side)]


class TeiBody(Wire):
    """Without `prompt_name`, the server's default task."""

    inputs: Inputs = Field(examples=["hello", ["first", "second"]])
    normalize: bool = True
    truncate: bool = False
    truncation_direction: Direction = Field("right", description="`left` with `truncate` is not supported.")
    prompt_name: TaskName | None = Field(None, description="A task by any of its names.")
    instruction: Instruction = None
    dimensions: Dimensions | None = None

    @model_validator(mode="after")
    def _supported(self) -> Self:
        if self.truncate and self.truncation_direction == "left":
            raise invalid("truncation_direction", "left is not supported: only the end can be dropped", given="left")
        return self


class TeiAnswer(RootModel[list[Floats]]):
    """One vector per input, in order."""


class TeiError(BaseModel):
    error: str
    error_type: ErrorType


def parse(body: object) -> ParsedRequest:
    """The request in a body of `/embed`. Raises Invalid with every fault found."""
    wire = validated(TeiBody, body)
    request = EmbedRequest(
        inputs=wire.inputs,
        role=wire.prompt_name,
        instruction=wire.instruction,
        dimensions=wire.dimensions,
        normalized=wire.normalize,
        truncate=wire.truncate,
    )
    return ParsedRequest(request, lambda result: list(result.vectors))


def render_error(error: ProxyError, _: str) -> RenderedError:
    """An error in TEI's format, where a text that is too long is 413."""
    status = 413 if isinstance(error, InputTooLong) else error.status
    return RenderedError(status, {"error": error.message, "error_type": _type(status)})


def info(model: str, made: Provenance, *, tokens: int, items: int) -> dict[str, object]:
    """The body of `/info`; `tokens` is the limit of one input, `items` that of one request."""
    return {
        "model_id": model,
        "model_sha": made.digest.removeprefix("sha256:"),
        "model_dtype": made.quantization,
        "model_type": {"embedding": {"pooling": POOLING_NAMES.get(made.pooling, made.pooling)}},
        "max_input_length": tokens,
        "max_client_batch_size": items,
        "auto_truncate": False,
        "version": made.engine,
    }


def _type(status: int) -> ErrorType:
    by_status: dict[int, ErrorType] = {429: "Overloaded", 503: "Unhealthy"}
    return by_status.get(status, "Validation" if status < 500 else "Backend")


DIALECTS = (
    Dialect(
        paths=["/embed", "/"],
        summary="Embed texts: text-embeddings-inference",
        parse=parse,
        body=TeiBody,
        answer=TeiAnswer,
        render_error=render_error,
        error=TeiError,
    ),
)
