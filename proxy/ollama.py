"""Ollama's `/api/embed` and the older `/api/embeddings`.

Sources: server/routes.go of ollama/ollama (its defaults, its 404, the name echoed as it came) and the package `ollama`
0.6 (`error` is a string). A model's tag can name the task: `jina-embeddings-v4:retrieval.query`; `:latest` is no tag.
"""

import time
from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, Field, WithJsonSchema

from proxy.answers import Floats
from proxy.embedding import EmbedRequest, EmbedResult, Provenance
from proxy.errors import ModelNotFound, ProxyError, invalid
from proxy.wire import Asked, Dimensions, Door, Inputs, Refusal, Wire, validated

LATEST = ":latest"
API_VERSION = "0.13.0"  # the Ollama whose API this is; clients ask whether a feature is there yet


class OllamaBody(Wire):
    """`options` and `keep_alive` are ignored: the models are always loaded."""

    inputs: Inputs = Field(validation_alias="input", examples=["hello", ["first", "second"]])
    model: str | None = Field(None, description="With or without `:latest`; another tag names the task.")
    truncate: bool = Field(True, description="Drop the tail of a text that is too long; false: refuse it.")
    dimensions: Dimensions | None = None


class OllamaPromptBody(Wire):
    """One text."""

    inputs: Annotated[Inputs, WithJsonSchema({"type": "string"})] = Field(validation_alias="prompt", examples=["hello"])
    model: str | None = None


class OllamaAnswer(BaseModel):
    """Durations are in nanoseconds."""

    model: str
    embeddings: list[Floats]
    total_duration: int
    load_duration: int
    prompt_eval_count: int


class OllamaPromptAnswer(BaseModel):
    embedding: Floats


class OllamaError(BaseModel):
    error: str


def parse(body: object) -> Asked:
    """`/api/embed`. Raises Invalid with every fault found."""
    wire, started = validated(OllamaBody, body), time.perf_counter_ns()
    request = EmbedRequest(
        inputs=wire.inputs, model=_name(wire.model), truncate=wire.truncate, dimensions=wire.dimensions
    )

    def render(result: EmbedResult) -> object:
        return {
            "model": wire.model or result.model,
            "embeddings": list(result.vectors),
            "total_duration": time.perf_counter_ns() - started,
            "load_duration": 0,
            "prompt_eval_count": result.tokens,
        }

    return Asked(request, render)


def parse_prompt(body: object) -> Asked:
    """`/api/embeddings`: one text, and nothing but its vector. Raises Invalid with every fault found."""
    wire = validated(OllamaPromptBody, body)
    if len(wire.inputs) != 1:
        raise invalid("prompt", "must be one text: /api/embed takes several")
    request = EmbedRequest(inputs=wire.inputs, model=_name(wire.model), truncate=True)
    return Asked(request, lambda result: {"embedding": result.vectors[0]})


def refuse(error: ProxyError, _: str) -> Refusal:
    """An error as Ollama writes it; its clients pull a model that is answered with 404."""
    if isinstance(error, ModelNotFound):
        return Refusal(404, {"error": f'model "{error.model}" not found, try pulling it first'})
    return Refusal(error.status, {"error": error.message})


def tags(family: str, models: Mapping[str, Provenance]) -> dict[str, object]:
    """The body of `/api/tags`: what made the vectors of each model, by its name."""
    return {"models": [_tag(family, *model) for model in models.items()]}


def _tag(family: str, name: str, made: Provenance) -> dict[str, object]:
    tagged = name if ":" in name else name + LATEST
    details = {"format": "gguf", "family": family, "families": [family], "quantization_level": made.quantization}
    digest = made.digest.removeprefix("sha256:")
    return {"name": tagged, "model": tagged, "size": 0, "digest": digest, "details": details}


def _name(model: str | None) -> str | None:
    return model.removesuffix(LATEST) if model else None


DOORS = (
    Door(
        paths=["/api/embed"],
        summary="Embed texts: Ollama",
        parse=parse,
        body=OllamaBody,
        answer=OllamaAnswer,
        refuse=refuse,
        error=OllamaError,
    ),
    Door(
        paths=["/api/embeddings"],
        summary="Embed a text: Ollama's older way",
        parse=parse_prompt,
        body=OllamaPromptBody,
        answer=OllamaPromptAnswer,
        refuse=refuse,
        error=OllamaError,
    ),
)
