"""Gemini's `:embedContent` and `:batchEmbedContents`. The model is the path's.

Sources: the package `google-genai` 3.6 (paths, fields, `error` with `code`, `message` and `status`), the reference of
the Gemini API (`title` is for documents only; a content consists of the texts of its parts) and Vertex AI's
(`autoTruncate` is on). A title becomes the first line of its text: Google does not say what its own models do with it.
"""

from typing import Annotated

from pydantic import AliasChoices, BaseModel, BeforeValidator, Field, model_validator

from proxy.errors import ModelNotFound, ProxyError
from proxy.faults import Invalid, invalid
from proxy.types import EmbedRequest, EmbedResult
from proxy.wire.answer_models import Floats
from proxy.wire.dialect import (
    Dialect,
    Dimensions,
    Instruction,
    ParsedRequest,
    RenderedError,
    TaskName,
    Wire,
    validated,
)

CONFIG = ("embedContentConfig", "embed_content_config")
_DOCUMENT = ("RETRIEVAL_DOCUMENT", "retrieval.passage")
UNSPECIFIED = ("TASK_TYPE_UNSPECIFIED", "UNSPECIFIED")
STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    413: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class GeminiPart(BaseModel):
    text: str


class GeminiContent(BaseModel):
    """One input: the texts of its parts, joined without a separator."""

    parts: Annotated[list[GeminiPart], Field(min_length=1)] = Field(examples=[[{"text": "hello"}]])


def _text_of(content: object) -> str:
    parts = content.get("parts") if isinstance(content, dict) else None
    if not isinstance(parts, list) or not parts:
        raise ValueError('must be {"parts": [{"text": "…"}]}')
    texts = [part.get("text") if isinstance(part, dict) else None for part in parts]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("has a part that is not text, and this is a text-only model")
    return "".join(text for text in texts if isinstance(text, str))


def _task_of(value: object) -> object:
    return None if value in UNSPECIFIED else value


class GeminiBody(Wire):
    """The settings may also be in `embedContentConfig`, and all names in snake_case."""

    content: Annotated[str, BeforeValidator(_text_of, json_schema_input_type=GeminiContent)] = Field(
        examples=[{"parts": [{"text": "hello"}]}]
    )
    task: Annotated[TaskName | None, BeforeValidator(_task_of)] = Field(
        None, validation_alias=AliasChoices("taskType", "task_type"), description="A task, also by Gemini's names."
    )
    instruction: Instruction = None
    title: str | None = Field(
        None, description="With `RETRIEVAL_DOCUMENT` only: becomes the first line of the text.", examples=[None]
    )
    dimensions: Dimensions | None = Field(
        None, validation_alias=AliasChoices("outputDimensionality", "output_dimensionality")
    )
    truncate: bool = Field(
        True,
        validation_alias=AliasChoices("autoTruncate", "auto_truncate"),
        description="Drop the tail of a text that is too long; false: refuse it.",
    )

    @model_validator(mode="before")
    @classmethod
    def _with_config(cls, fields: object) -> object:
        if not isinstance(fields, dict):
            return fields
        configs: list[dict[object, object]] = [fields[name] for name in CONFIG if isinstance(fields.get(name), dict)]
        given = {name: value for name, value in fields.items() if value is not None}
        return {**configs[0], **given} if configs else given

    @property
    def text(self) -> str:
        """The text to embed."""
        return f"{self.title}\n{self.content}" if self.title else self.content

    @property
    def settings(self) -> tuple[object, ...]:
        """What must be equal for all texts of a batch."""
        return self.task, self.instruction, self.dimensions, self.truncate


class GeminiBatchBody(Wire):
    """All requests with the same settings, except the title."""

    requests: Annotated[list[GeminiBody], Field(min_length=1, fail_fast=True)] = Field(
        examples=[[{"content": {"parts": [{"text": "first"}]}}, {"content": {"parts": [{"text": "second"}]}}]]
    )


class GeminiUsage(BaseModel):
    promptTokenCount: int  # noqa: N815 # the wire's own name


class GeminiValues(BaseModel):
    values: Floats


class GeminiAnswer(BaseModel):
    embedding: GeminiValues
    usageMetadata: GeminiUsage  # noqa: N815


class GeminiBatchAnswer(BaseModel):
    embeddings: list[GeminiValues]
    usageMetadata: GeminiUsage  # noqa: N815


class GeminiReason(BaseModel):
    code: int
    message: str
    status: str


class GeminiError(BaseModel):
    error: GeminiReason


def parse(body: object) -> ParsedRequest:
    """`:embedContent`: one text. Raises Invalid with every fault found."""
    wire = validated(GeminiBody, body)
    return ParsedRequest(
        _request_of([wire], "title"),
        lambda result: {"embedding": {"values": result.vectors[0]}, "usageMetadata": _usage(result)},
    )


def parse_batch(body: object) -> ParsedRequest:
    """`:batchEmbedContents`. Raises Invalid with every fault found."""
    wires = validated(GeminiBatchBody, body).requests
    for index, wire in enumerate(wires):
        if wire.settings != wires[0].settings:
            message = (
                "must have the first one's taskType, instruction, outputDimensionality and autoTruncate: "
                "a batch has one of each"
            )
            raise invalid(f"requests.{index}", message, kind="unsupported")
    return ParsedRequest(
        _request_of(wires, "requests.{}.title"),
        lambda result: {"embeddings": [{"values": row} for row in result.vectors], "usageMetadata": _usage(result)},
    )


def render_error(error: ProxyError, _: str) -> RenderedError:
    """An error in Google's format, where an invalid request is 400."""
    status = 400 if isinstance(error, Invalid) else 404 if isinstance(error, ModelNotFound) else error.status
    reason = {"code": status, "message": error.message, "status": STATUSES.get(status, "INTERNAL")}
    return RenderedError(status, {"error": reason})


def _request_of(wires: list[GeminiBody], title: str) -> EmbedRequest:
    """The EmbedRequest of one or several bodies. `title` is that field's name, for an error."""
    first = wires[0]
    for index, wire in enumerate(wires):
        if wire.title and first.task not in _DOCUMENT:
            raise invalid(title.format(index), "is for the taskType RETRIEVAL_DOCUMENT only", given=wire.title)
    return EmbedRequest(
        inputs=[wire.text for wire in wires],
        task=first.task,
        instruction=first.instruction,
        dimensions=first.dimensions,
        truncate=first.truncate,
    )


def _usage(result: EmbedResult) -> dict[str, int]:
    return {"promptTokenCount": result.tokens}


def _paths(verb: str) -> list[str]:
    return [f"{version}/models/{{model}}:{verb}" for version in ("/v1beta", "/v1")]


DIALECTS = (
    Dialect(
        paths=_paths("embedContent"),
        summary="Embed a text: Gemini",
        parse=parse,
        body=GeminiBody,
        answer=GeminiAnswer,
        render_error=render_error,
        error=GeminiError,
    ),
    Dialect(
        paths=_paths("batchEmbedContents"),
        summary="Embed texts: Gemini",
        parse=parse_batch,
        body=GeminiBatchBody,
        answer=GeminiBatchAnswer,
        render_error=render_error,
        error=GeminiError,
    ),
)
