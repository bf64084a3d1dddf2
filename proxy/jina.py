"""The embeddings API of Jina and of OpenAI: one wire model for both, the names of the fields are its table."""

from typing import Annotated, Self

from pydantic import AliasChoices, BeforeValidator, Field, model_validator

from proxy import encode
from proxy.embedding import EmbedRequest, EmbedResult, Encoding
from proxy.errors import Fault, Invalid
from proxy.wire import Asked, Count, Inputs, Wire, one_or_more, validated


class EmbeddingsBody(Wire):
    """`POST /v1/embeddings`."""

    inputs: Inputs = Field(validation_alias=AliasChoices("input", "content", "texts"))
    model: str | None = None
    task: str | None = Field(None, validation_alias=AliasChoices("task", "task_type", "input_type"))
    prompt_name: str | None = None
    encodings: Annotated[tuple[Encoding, ...], BeforeValidator(one_or_more), Field(min_length=1)] = Field(
        (Encoding.FLOAT,),
        validation_alias=AliasChoices("embedding_type", "encoding_type", "encoding_format", "embedding_types"),
    )
    dimensions: Count | None = Field(
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


def parse(body: object) -> Asked:
    """The request in a body of Jina's or OpenAI's client. Raises Invalid with every fault found."""
    request = request_of(validated(EmbeddingsBody, body))
    return Asked(request, lambda result: render(result, request.encodings))


def request_of(wire: EmbeddingsBody) -> EmbedRequest:
    """The wire's fields under the core's names."""
    return EmbedRequest(
        inputs=wire.inputs,
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
