"""What the dialects share: JSON → a validated wire model, and what a dialect gives back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema
from typing_extensions import TypeAliasType, TypedDict

from proxy.embedding import EmbedRequest, EmbedResult
from proxy.errors import Fault, Invalid, ProxyError, shown
from proxy.inputs import inputs_of
from proxy.schema import as_accepted


@dataclass(frozen=True, slots=True)
class Asked:
    """A parsed request, and how its answer is written in the dialect that it came in."""

    request: EmbedRequest
    render: Callable[[EmbedResult], object]


Parse = Callable[[object], Asked]  # of a JSON body; raises Invalid with every fault found


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error as a dialect writes it."""

    status: int
    body: object


Refuse = Callable[[ProxyError, str], Refusal]  # of an error and the request's id


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """One dialect's way in: what is served at `paths`, and what `/openapi.json` says about it.

    `body` and `answer` describe what `parse` takes and its `render` gives. `raw`: the answer can be raw floats.
    `later`: the answer is a job, and `render` writes the output that it comes to. `refuse` and `error`, its shape, are
    for dialects whose clients do not read our common error body.
    """

    paths: Sequence[str]
    summary: str
    parse: Parse
    body: type[BaseModel]
    answer: type[BaseModel]
    raw: bool = True
    later: bool = False
    refuse: Refuse | None = None
    error: type[BaseModel] | None = None


class Wire(BaseModel):
    """A body as a client sends it: fields that are not named are ignored, null means absent."""

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
    """The body as that model. Raises Invalid with every fault found."""
    if not isinstance(body, dict):
        raise Invalid(Fault(field="body", message="must be a JSON object", type="object_type", input=shown(body)))
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise Invalid(*_faults(error)) from error


def _no_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("must be a whole number, not a boolean")  # noqa: TRY004 # pydantic reports only ValueError
    return value


def _cut_at_the_end(value: object) -> object:
    """Cohere's and NIM's words for what others say with a boolean."""
    if value == "START":
        raise ValueError("START is not supported: only the end can be dropped (END), or nothing (NONE)")
    return {"END": True, "NONE": False}.get(value, value) if isinstance(value, str) else value


def one_or_more(value: object) -> object:
    """A single value as a list of one."""
    return value if isinstance(value, list) else [value]


class TextItem(TypedDict):
    """A text as an object, as Jina's clients send it."""

    text: str


# What a client may send, as the document describes it. `openapi` fills in the names that a `$ref` stands for, as they
# are the served family's.
TokenId = Annotated[int, WithJsonSchema({"$ref": "#/components/schemas/TokenId"})]
Ids = Annotated[list[TokenId], Field(min_length=1, description="One input of token ids.")]
OneOrMany = TypeAliasType(
    "OneOrMany", str | TextItem | Ids | Annotated[list[str | TextItem | Ids], Field(min_length=1)]
)
Inputs = Annotated[tuple[str | tuple[int, ...], ...], BeforeValidator(inputs_of, json_schema_input_type=OneOrMany)]
Count = Annotated[int, BeforeValidator(_no_bool)]
Truncation = Annotated[bool, BeforeValidator(_cut_at_the_end, json_schema_input_type=bool | Literal["END", "NONE"])]
TaskName = Annotated[str, WithJsonSchema({"$ref": "#/components/schemas/TaskName"})]
ModelName = Annotated[str, WithJsonSchema({"$ref": "#/components/schemas/ModelName"})]
Refused = Annotated[bool, WithJsonSchema({"const": False})]  # a bool of which only false is served
# `allOf`, as pydantic would look up a bare `$ref` that has a default beside it.
MultiVector = Annotated[bool, WithJsonSchema({"allOf": [{"$ref": "#/components/schemas/MultiVector"}]})]
Dimensions = Annotated[Count, WithJsonSchema({"$ref": "#/components/schemas/Dimensions"})]


def _faults(error: ValidationError) -> list[Fault]:
    return [
        Fault(
            field=".".join(map(str, fault["loc"])),
            message=fault["msg"],
            type=fault["type"],
            input="" if fault["type"] == "missing" else shown(fault["input"]),
        )
        for fault in error.errors(include_url=False, include_context=False)
    ]
