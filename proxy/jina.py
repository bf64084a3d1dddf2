"""The embeddings API of Jina and of OpenAI: one wire model for both, the names of the fields are its table."""

from typing import Annotated, Self

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from proxy import encode
from proxy.embedding import EmbedRequest, EmbedResult, Encoding
from proxy.errors import Fault, Invalid
from proxy.inputs import texts_of


def _no_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("must be a whole number, not a boolean")  # noqa: TRY004 # pydantic reports only ValueError
    return value


def _one_or_more(value: object) -> object:
    return value if isinstance(value, list) else [value]


class EmbeddingsBody(BaseModel):
    """`POST /v1/embeddings`. Fields that are not named here are ignored; null means absent."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    texts: Annotated[tuple[str, ...], BeforeValidator(texts_of)] = Field(
        validation_alias=AliasChoices("input", "content", "texts")
    )
    model: str | None = None
    task: str | None = Field(None, validation_alias=AliasChoices("task", "task_type", "input_type"))
    prompt_name: str | None = None
    encodings: Annotated[tuple[Encoding, ...], BeforeValidator(_one_or_more), Field(min_length=1)] = Field(
        (Encoding.FLOAT,),
        validation_alias=AliasChoices("embedding_type", "encoding_type", "encoding_format", "embedding_types"),
    )
    dimensions: Annotated[int, BeforeValidator(_no_bool)] | None = Field(
        None, validation_alias=AliasChoices("dimensions", "output_dimension", "output_dimensionality")
    )
    normalized: bool = True
    truncate: bool = Field(False, validation_alias=AliasChoices("truncate", "truncation"))
    late_chunking: bool = False
    return_multivector: bool = False

    @model_validator(mode="after")
    def _supported(self) -> Self:
        for field in ("late_chunking", "return_multivector"):
            if getattr(self, field):
                raise Invalid(Fault(field=field, message="is not supported yet", type="unsupported", input="true"))
        return self


def parse(body: object) -> EmbedRequest:
    """The request in a JSON body. Raises Invalid with every fault found."""
    if not isinstance(body, dict):
        raise Invalid(Fault(field="body", message="must be a JSON object", type="object_type", input=repr(body)[:80]))
    present = {field: value for field, value in body.items() if value is not None}
    try:
        wire = EmbeddingsBody.model_validate(present)
    except ValidationError as error:
        raise Invalid(*_faults(error)) from error
    return EmbedRequest(
        texts=wire.texts,
        model=wire.model,
        task=wire.task,
        role=wire.prompt_name,
        dimensions=wire.dimensions,
        normalized=wire.normalized,
        truncate=wire.truncate,
        encodings=tuple(dict.fromkeys(wire.encodings)),
    )


def render(result: EmbedResult, encodings: tuple[Encoding, ...]) -> dict[str, object]:
    """The response body; its arrays are for orjson to write."""
    rows = encode.encode(result.vectors, encodings)
    return {
        "model": result.model,
        "object": "list",
        "usage": {"prompt_tokens": result.tokens, "total_tokens": result.tokens},
        "data": [{"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(rows)],
    }


def _faults(error: ValidationError) -> list[Fault]:
    return [
        Fault(
            field=".".join(map(str, fault["loc"])),
            message=fault["msg"],
            type=fault["type"],
            input="" if fault["type"] == "missing" else repr(fault["input"])[:80],
        )
        for fault in error.errors(include_url=False, include_context=False)
    ]
