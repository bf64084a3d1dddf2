"""Ollama's `/api/embed` and the older `/api/embeddings`, and the routes that its clients call first.

Sources: docs/api.md, api/types.go and server/routes.go of ollama/ollama (its defaults, its 404, the model's name echoed
as sent, the fields of its lists); the package `ollama` 0.6 (`error` is a string); what AnythingLLM (`GET /`), Langflow
(`capabilities`), Roo Code (`details`, `context_length`) and Open WebUI (`/api/version`, `/api/ps`) look for.
A model's tag can name the task: `jina-embeddings-v4:retrieval.query`; `:latest` counts as no tag.
"""

import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated

from pydantic import AliasChoices, BaseModel, Field, WithJsonSchema

from proxy.contract.family import Family
from proxy.embedding.tasks import Route
from proxy.errors import ModelNotFound, ProxyError
from proxy.faults import invalid
from proxy.models.provenance import UNKNOWN
from proxy.types import EmbedRequest, EmbedResult, Provenance
from proxy.wire.answer_models import Floats
from proxy.wire.dialect import (
    Dialect,
    Dimensions,
    Inputs,
    Instruction,
    ModelName,
    ParsedRequest,
    RenderedError,
    Wire,
    validated,
)

LATEST = ":latest"
API_VERSION = "0.13.0"  # the version of Ollama whose API this is; clients check it for features
RUNNING = "Ollama is running"  # clients look for these words
PULLED: Sequence[Mapping[str, str]] = ({"status": "pulling manifest"}, {"status": "success"})
NEVER = "2300-01-01T00:00:00Z"  # as far away as Ollama's own; some clients cannot represent much later dates


class OllamaBody(Wire):
    """`options` and `keep_alive` are ignored: the models are always loaded."""

    inputs: Inputs = Field(validation_alias="input", examples=["hello", ["first", "second"]])
    model: str | None = Field(None, description="With or without `:latest`; another tag names the task.")
    truncate: bool = Field(True, description="Drop the tail of a text that is too long; false: reject it.")
    instruction: Instruction = None
    dimensions: Dimensions | None = None


class OllamaPromptBody(Wire):
    """One text."""

    inputs: Annotated[Inputs, WithJsonSchema({"type": "string"})] = Field(validation_alias="prompt", examples=["hello"])
    model: str | None = None
    instruction: Instruction = None


class OllamaShowBody(Wire):
    """Older clients send `name`."""

    model: ModelName | None = Field(None, validation_alias=AliasChoices("model", "name"))


class OllamaPullBody(OllamaShowBody):
    """A served model is already present; no other is pulled."""

    stream: bool = True


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


def parse(body: object) -> ParsedRequest:
    """`/api/embed`. Raises Invalid with every fault found."""
    wire, started = validated(OllamaBody, body), time.perf_counter_ns()
    request = EmbedRequest(
        inputs=wire.inputs,
        model=name_of(wire.model),
        instruction=wire.instruction,
        truncate=wire.truncate,
        dimensions=wire.dimensions,
    )

    def render(result: EmbedResult) -> object:
        return {
            "model": wire.model or result.model,
            "embeddings": list(result.vectors),
            "total_duration": time.perf_counter_ns() - started,
            "load_duration": 0,
            "prompt_eval_count": result.tokens,
        }

    return ParsedRequest(request, render)


def parse_prompt(body: object) -> ParsedRequest:
    """`/api/embeddings`: one text, whose vector alone is returned. Raises Invalid with every fault found."""
    wire = validated(OllamaPromptBody, body)
    if len(wire.inputs) != 1:
        raise invalid("prompt", "must be one text: /api/embed takes several")
    request = EmbedRequest(inputs=wire.inputs, model=name_of(wire.model), instruction=wire.instruction, truncate=True)
    return ParsedRequest(request, lambda result: {"embedding": result.vectors[0]})


def render_error(error: ProxyError, _: str) -> RenderedError:
    """An error in Ollama's format; its clients pull a model when they get 404."""
    if isinstance(error, ModelNotFound):
        return RenderedError(404, {"error": f'model "{error.model}" not found, try pulling it first'})
    return RenderedError(error.status, {"error": error.message})


def name_of(model: str | None) -> str | None:
    """The model's name without Ollama's `:latest`; None means the default."""
    return model.removesuffix(LATEST) if model else None


def tags(family: str, models: Mapping[str, Provenance], modified: datetime) -> dict[str, object]:
    """The body of `/api/tags`, from the provenance of each model by its name."""
    since = {"modified_at": modified.isoformat()}
    return {"models": [{**_row(family, *model), **since} for model in models.items()]}


def running_models(family: str, models: Mapping[str, Provenance], tokens: int) -> dict[str, object]:
    """The body of `/api/ps`. The proxy does not know whether a model is in RAM or VRAM."""
    about = {"expires_at": NEVER, "size_vram": 0, "context_length": tokens}
    return {"models": [{**_row(family, *model), **about} for model in models.items()]}


def model_details(family: Family, row: Route, made: Provenance, tokens: int, modified: datetime) -> dict[str, object]:
    """The body of `/api/show` for a model whose texts may have `tokens` tokens."""
    return {
        "license": family.licence,
        "modelfile": f"FROM {family.hugging_face_id}\n",
        "parameters": f"num_ctx {tokens}",
        "template": row.prefix_with(None) + "{{ .Prompt }}",
        "details": _details(family.name, made),
        "model_info": {
            "general.architecture": family.name,
            "general.parameter_count": made.size.parameters,
            f"{family.name}.context_length": tokens,
            f"{family.name}.embedding_length": family.dimensions,
        },
        "capabilities": ["embedding"],
        "modified_at": modified.isoformat(),
    }


def _row(family: str, name: str, made: Provenance) -> dict[str, object]:
    tagged = name if ":" in name else name + LATEST
    digest = made.digest.removeprefix("sha256:")
    details = _details(family, made)
    return {"name": tagged, "model": tagged, "size": made.size.bytes, "digest": digest, "details": details}


def _details(family: str, made: Provenance) -> dict[str, object]:
    return {
        "parent_model": "",
        "format": "gguf",
        "family": family,
        "families": [family],
        "parameter_size": _human(made.size.parameters),
        "quantization_level": made.quantization,
    }


def _human(parameters: int) -> str:
    """A number in Ollama's format: 3.1B, 137.00M."""
    if not parameters:
        return UNKNOWN
    if parameters >= 1e9:
        return f"{parameters / 1e9:.1f}B"
    return f"{parameters / 1e6:.2f}M" if parameters >= 1e6 else f"{parameters / 1e3:.2f}K"


DIALECTS = (
    Dialect(
        paths=["/api/embed"],
        summary="Embed texts: Ollama",
        parse=parse,
        body=OllamaBody,
        answer=OllamaAnswer,
        render_error=render_error,
        error=OllamaError,
    ),
    Dialect(
        paths=["/api/embeddings"],
        summary="Embed a text: Ollama's older API",
        parse=parse_prompt,
        body=OllamaPromptBody,
        answer=OllamaPromptAnswer,
        render_error=render_error,
        error=OllamaError,
    ),
)
