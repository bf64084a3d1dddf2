"""The base of all dialects: what a dialect consists of, and JSON → a validated wire model."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PlainValidator,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, ErrorDetails, PydanticCustomError

from proxy.errors import ProxyError
from proxy.faults import Fault, Invalid
from proxy.quoting import did_you_mean, quoted, shown
from proxy.types import EmbedRequest, EmbedResult, Encoding, Input, Refused
from proxy.wire.input_shapes import InputsField, ItemsField
from proxy.wire.inputs import inputs_of, items_of
from proxy.wire.schema import as_accepted


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """A request, and how its result is rendered in the dialect it came in."""

    request: EmbedRequest
    render: Callable[[EmbedResult], object]


Parse = Callable[[object], ParsedRequest]  # of a JSON body; raises Invalid with every fault found


@dataclass(frozen=True, slots=True)
class RenderedError:
    """An error in a dialect's format."""

    status: int
    body: object


ErrorRenderer = Callable[[ProxyError, str], RenderedError]  # of an error and the request's id


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """One dialect: what is served at `paths`, and what `/openapi.json` says about it.

    `body` and `answer` describe what `parse` takes and its `render` returns. `raw`: the response can be raw floats.
    `asynchronous`: the response is a job, and `render` builds the job's output. `render_error`, and `error`, its shape,
    are for dialects whose clients do not read our common error body.
    """

    paths: Sequence[str]
    summary: str
    parse: Parse
    body: type[BaseModel]
    answer: type[BaseModel]
    raw: bool = True
    asynchronous: bool = False
    render_error: ErrorRenderer | None = None
    error: type[BaseModel] | None = None


class Wire(BaseModel):
    """A body as a client sends it: unknown fields are ignored, null means absent."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, fields: object) -> object:
        return {k: v for k, v in fields.items() if v is not None} if isinstance(fields, dict) else fields

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return as_accepted(handler.resolve_ref_schema(handler(core)), cls.model_fields)


T = TypeVar("T", bound=Wire)


def validated(model: type[T], body: object) -> T:
    """The body parsed into that model. Raises Invalid with every fault found."""
    if not isinstance(body, dict):
        raise Invalid(Fault(field="body", message="must be a JSON object", type="object_type", input=shown(body)))
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise Invalid(*_faults(error)) from error


_ENCODINGS = "'float', 'base64', 'binary' or 'ubinary'"
ONE_ENCODING = {str(one): (one,) for one in Encoding}
# The message for a fault, by pydantic's name of it; pydantic's own message for all others.
_MESSAGES = {
    "missing": "is required",
    "value_error": "{error}",
    "literal_error": "must be {expected}, not {given}{meant}",
    "enum": "must be {expected}, not {given}{meant}",
    "string_type": "must be a string, not {given}",
    "model_type": "must be an object, not {given}",
    "list_type": "must be a list, not {given}",
    "dict_type": "must be an object, not {given}",
    "too_short": "must have at least one entry",
    "too_long": "must have at most {most} entries",
    "string_too_long": "must have at most {most} characters",
    "greater_than_equal": "must be at least {least}, not {given}",
    "less_than_equal": "must be at most {most}, not {given}",
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false, not {given}"),
    **dict.fromkeys(
        ("int_type", "int_parsing", "int_from_float", "int_parsing_size", "finite_number"),
        "must be an integer, not {given}",
    ),
}


def _faults(error: ValidationError) -> list[Fault]:
    """The first fault of each field."""
    by_field = dict[str, ErrorDetails]()
    for fault in error.errors(include_url=False):
        by_field.setdefault(".".join(shown(str(part)) for part in fault["loc"]), fault)  # a part may be a client's key
    return [
        Fault(
            field=field,
            message=_message(fault),
            type=fault["type"],
            input="" if fault["type"] == "missing" else shown(fault["input"]),
        )
        for field, fault in by_field.items()
    ]


def _message(fault: ErrorDetails) -> str:
    context, given = fault.get("ctx", {}), fault["input"]
    expected = str(context.get("expected", ""))
    return _MESSAGES.get(fault["type"], "{default}").format(
        default=fault["msg"],
        error=context.get("error", ""),
        expected=expected,
        least=context.get("ge", ""),
        most=context.get("le", context.get("max_length", "")),
        given=quoted(given),
        meant=did_you_mean(given, re.findall("'(.+?)'", expected)),
    )


def _no_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("must be an integer, not a boolean")  # noqa: TRY004 # pydantic reports only ValueError
    return value


def _truncation(value: object) -> object:
    """Cohere's and NIM's names for what other APIs express with a boolean."""
    if value == "START":
        raise ValueError("START is not supported: only the end can be dropped (END), or nothing (NONE)")
    return {"END": True, "NONE": False}.get(value, value) if isinstance(value, str) else value


def _encodings_of(value: object) -> tuple[Encoding, ...]:
    """The encodings of one name or a list of names."""
    if isinstance(value, str) and value in ONE_ENCODING:
        return ONE_ENCODING[value]
    given = value if isinstance(value, list) else [value]
    if not given:
        raise ValueError(f"must have at least 1 of {_ENCODINGS}")
    if len(given) > len(Encoding):
        raise ValueError(f"has {len(given)} types, and there are {len(Encoding)}: {_ENCODINGS}")
    try:
        return tuple(dict.fromkeys(map(Encoding, given)))
    except ValueError:
        raise PydanticCustomError("enum", "unknown", {"expected": _ENCODINGS}) from None


# What a client may send, as the OpenAPI document describes it. `openapi` defines the names behind each `$ref`, as they
# depend on the served family.
Inputs = Annotated[tuple[Input, ...], PlainValidator(inputs_of, json_schema_input_type=InputsField)]
Items = Annotated[tuple[Input | Refused, ...], PlainValidator(items_of, json_schema_input_type=ItemsField)]
Encodings = Annotated[
    tuple[Encoding, ...],
    PlainValidator(
        _encodings_of, json_schema_input_type=Encoding | Annotated[list[Encoding], Field(min_length=1, max_length=4)]
    ),
]
Count = Annotated[int, BeforeValidator(_no_bool)]
Truncation = Annotated[bool, BeforeValidator(_truncation, json_schema_input_type=bool | Literal["END", "NONE"])]
TaskName = Annotated[str, WithJsonSchema({"$ref": "#/components/schemas/TaskName"})]
ModelName = Annotated[str, WithJsonSchema({"$ref": "#/components/schemas/ModelName"})]
# `allOf`, as pydantic would try to resolve a bare `$ref` that has a default beside it.
MultiVectorField = Annotated[bool, WithJsonSchema({"allOf": [{"$ref": "#/components/schemas/MultiVector"}]})]
LateChunkingField = Annotated[bool, WithJsonSchema({"allOf": [{"$ref": "#/components/schemas/LateChunking"}]})]
Dimensions = Annotated[Count, WithJsonSchema({"$ref": "#/components/schemas/Dimensions"})]
MAX_INSTRUCTION = 2048  # characters; each text of a request gets it
_INSTRUCTION = {"maxLength": MAX_INSTRUCTION, "allOf": [{"$ref": "#/components/schemas/Instruction"}]}
Instruction = Annotated[
    Annotated[str, Field(max_length=MAX_INSTRUCTION), WithJsonSchema(_INSTRUCTION)] | None,
    Field(
        description="What the texts are embedded for, in words, in place of the task's own: for tasks whose prefix has "
        "an instruction, such as Qwen3-Embedding's queries.",
        examples=[None],
    ),
]
