"""What clients send to the batch APIs and get from them: OpenAI's files and batches, Jina's batch embeddings.

Sources: OpenAI's API reference and the types of its Python package; Jina's OpenAPI document and its page for coding
agents. Both APIs show the same jobs: a job of one can be asked for by the other.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema
from pydantic.json_schema import JsonSchemaValue

from proxy.batches.jobs import BatchJob
from proxy.batches.lines import URLS
from proxy.batches.records import ENDED, BatchStatus, ResultKind
from proxy.batches.uploads import FileRecord
from proxy.faults import Fault, Invalid
from proxy.quoting import shown
from proxy.wire.dialect import Dimensions, Encodings, ModelName, TaskName, Wire

PURPOSE, RESULT_PURPOSE = "batch", "batch_output"
MAX_METADATA = 16  # of OpenAI's: pairs, with keys of 64 and values of 512 characters
MAX_BATCH_ITEMS = 10_000  # of a body of Jina's
MAX_NAME_CHARACTERS = 256  # of a body of Jina's: each of its lines gets a copy
MIN_KEPT_S, MAX_KEPT_S = 3600, 2_592_000  # OpenAI's: an hour to 30 days


class ExpiresAfter(Wire):
    """How long a file is kept; here at most as long as the settings say."""

    seconds: int = Field(ge=MIN_KEPT_S, le=MAX_KEPT_S)


def _not_too_many(items: list[object]) -> list[object]:
    if len(items) > MAX_BATCH_ITEMS:
        raise ValueError(f"{len(items)} items; at most {MAX_BATCH_ITEMS}: send several batches, or upload a file")
    return items


def _not_too_much(metadata: object) -> object:
    if isinstance(metadata, dict) and len(metadata) > MAX_METADATA:  # before each pair is checked
        raise ValueError(f"{len(metadata)} pairs; at most {MAX_METADATA}")
    return metadata


def _no_url(_: object) -> object:
    raise ValueError("is not supported: this server fetches no addresses; send the lines as `input`, or upload a file")


def _no_webhook_url(_: object) -> object:
    raise ValueError("is not supported: this server calls no addresses; ask for the batch's status")


_UNSUPPORTED = WithJsonSchema({"type": "null"})
NoUrl = Annotated[object, AfterValidator(_no_url), _UNSUPPORTED]
MetadataKey = Annotated[str, Field(max_length=64)]
MetadataText = Annotated[str, Field(max_length=512)]
Metadata = Annotated[dict[MetadataKey, MetadataText], Field(max_length=MAX_METADATA), BeforeValidator(_not_too_much)]


_TEXT: JsonSchemaValue = {"type": "string"}
BATCH_ITEM: JsonSchemaValue = {
    "anyOf": [
        _TEXT,
        *(
            {"type": "object", "required": [name], "properties": {name: _TEXT, "custom_id": _TEXT}}
            for name in ("text", "image", "pdf")
        ),
        {"type": "object", "required": ["body"], "properties": {"body": {"type": "object"}, "custom_id": _TEXT}},
    ]
}
BatchItem = Annotated[object, WithJsonSchema(BATCH_ITEM)]


class CreateBatchBody(Wire):
    """OpenAI's: a job whose input is an uploaded file."""

    input_file_id: str = Field(description="Of a file uploaded with the purpose `batch`: JSONL, a request a line.")
    endpoint: Literal["/v1/embeddings"] = Field(description="Where the requests of all lines belong.")
    completion_window: str = Field("24h", description="Ignored: a job is begun at once, and never given up.")
    metadata: Metadata | None = None
    output_expires_after: ExpiresAfter | None = None


class BatchEmbeddingsBody(Wire):
    """Jina's: a job whose input is in the request."""

    input: Annotated[list[BatchItem], Field(min_length=1), AfterValidator(_not_too_many)] = Field(
        description='Texts, `{"text": …}`, images, or `{"custom_id": …, "body": {"input": …}}`.', examples=[["hello"]]
    )
    model: Annotated[ModelName, Field(max_length=MAX_NAME_CHARACTERS)] | None = Field(None, examples=[None])
    task: Annotated[TaskName, Field(max_length=MAX_NAME_CHARACTERS)] | None = None
    dimensions: Dimensions | None = None
    normalized: bool = True
    truncate: bool = False
    embedding_type: Encodings | None = None
    input_url: NoUrl = Field(None, description="Not supported: rejected.")
    input_file: NoUrl = Field(None, description="Not supported: rejected.")
    webhook_url: Annotated[object, AfterValidator(_no_webhook_url), _UNSUPPORTED] = Field(
        None, description="Not supported: rejected."
    )


JINA_STATUS: Mapping[BatchStatus, str] = {
    BatchStatus.VALIDATING: "pending",
    BatchStatus.IN_PROGRESS: "processing",
    BatchStatus.CANCELLING: "cancelled",
    BatchStatus.COMPLETED: "completed",
    BatchStatus.FAILED: "failed",
    BatchStatus.CANCELLED: "cancelled",
}


def lines_of(body: BatchEmbeddingsBody) -> Iterator[dict[str, object]]:
    """The items as lines of an input file. Raises Invalid for one that cannot be one."""
    common = common_fields(body)
    for index, item in enumerate(body.input):
        custom_id, given = _item(item, index)
        yield {"custom_id": custom_id, "body": {**common, **given}}


def common_fields(body: BatchEmbeddingsBody) -> dict[str, object]:
    """What each line gets, unless it has its own."""
    fields = {"model", "task", "dimensions", "normalized", "truncate", "embedding_type"}
    return body.model_dump(mode="json", include=fields, exclude_none=True)


def _item(item: object, index: int) -> tuple[str, dict[str, object]]:
    match item:
        case {"custom_id": str() as custom_id, "body": dict() as body}:
            return custom_id, body
        case {"body": dict() as body}:
            return f"request-{index}", body
        case {"custom_id": str() as custom_id, "input": given} | {"custom_id": str() as custom_id, "text": given}:
            return custom_id, {"input": given}
        case {"custom_id": str() as custom_id, **media} if "image" in media or "pdf" in media:
            return custom_id, {"input": media}
        case {"input": given} | ({"text": _} | {"image": _} | {"pdf": _} as given) | (str() as given):
            return f"request-{index}", {"input": given}
    message = 'must be a text, {"text": …}, {"image": …} or {"custom_id": …, "body": {"input": …}}'
    raise Invalid(Fault(field=f"input.{index}", message=message, type="value_error", input=shown(item)))


def file_answer(record: FileRecord, kept_s: float) -> dict[str, object]:
    """An uploaded file, as OpenAI describes it."""
    end = record.created_at + kept_s
    return {
        "id": record.id,
        "object": "file",
        "bytes": record.bytes,
        "created_at": int(record.created_at),
        "filename": record.filename,
        "purpose": record.purpose,
        "status": "processed",
        "expires_at": int(min(end, record.expires_at or end)),
    }


def result_answer(job: BatchJob, kind: ResultKind, size: int, kept_s: float) -> dict[str, object]:
    """A result of a job, as OpenAI describes a file."""
    ended_at = job.state.ended_at or time.time()
    return {
        "id": job.result_id(kind),
        "object": "file",
        "bytes": size,
        "created_at": int(ended_at),
        "filename": f"{job.spec.id}_{kind}.jsonl",
        "purpose": RESULT_PURPOSE,
        "status": "processed",
        "expires_at": int(ended_at + min(kept_s, job.spec.kept_s or kept_s)),
    }


def batch_answer(job: BatchJob, kept_s: float) -> dict[str, object]:
    """A job in OpenAI's form, with the fields of Jina's that have other names."""
    spec, state, status = job.spec, job.state, job.status
    jina, ended_at = status_answer(job, kept_s), state.ended_at and int(state.ended_at)
    faults = [one for one in (state.fault, state.obstacle) if one]
    return {
        "id": spec.id,
        "object": "batch",
        "endpoint": URLS[0],
        "errors": {"object": "list", "data": [_error(one.code, one.message) for one in faults]} if faults else None,
        "input_file_id": spec.input_file_id or "",
        "completion_window": "24h",
        "status": status,
        "output_file_id": job.result_id(ResultKind.OUTPUT) if jina["output_url"] else None,
        "error_file_id": job.result_id(ResultKind.ERRORS) if jina["error_file_url"] else None,
        "created_at": int(spec.created_at),
        "in_progress_at": state.started_at and int(state.started_at),
        "expires_at": jina["expires_at"],
        "finalizing_at": ended_at if status is BatchStatus.COMPLETED else None,
        "completed_at": ended_at if status is BatchStatus.COMPLETED else None,
        "failed_at": ended_at if status is BatchStatus.FAILED else None,
        "expired_at": None,
        "cancelling_at": ended_at if status is BatchStatus.CANCELLED else None,
        "cancelled_at": ended_at if status is BatchStatus.CANCELLED else None,
        "request_counts": {"total": state.total, "completed": state.completed, "failed": state.failed},
        "metadata": spec.metadata,
        **{name: jina[name] for name in ("batch_id", "stats", "output_url", "error_file_url")},
    }


def _error(code: str, message: str) -> dict[str, object]:
    return {"code": code, "message": message, "param": None, "line": None}


def status_answer(job: BatchJob, kept_s: float) -> dict[str, object]:
    """A job in Jina's form. `expires_at`: when its results are deleted; an unfinished job does not expire."""
    spec, state, ended = job.spec, job.state, job.state.status in ENDED
    ended_at = state.ended_at or 0
    fault = state.fault or state.obstacle
    has = {kind: ended and job.has(kind) for kind in ResultKind}
    return {
        "batch_id": spec.id,
        "status": JINA_STATUS[job.status],
        "stats": {
            "total": state.total,
            "completed": state.completed,
            "failed": state.failed,
            "total_tokens": state.tokens,
        },
        "output_url": f"/v1/batch/{spec.id}/output" if has[ResultKind.OUTPUT] else None,
        "error_file_url": f"/v1/batch/{spec.id}/errors" if has[ResultKind.ERRORS] else None,
        "created_at": int(spec.created_at),
        "completed_at": int(ended_at) if ended else None,
        "expires_at": int(ended_at + min(kept_s, spec.kept_s or kept_s)) if ended else None,
        "error": fault.message if fault else None,
    }


def listed(
    ids: Sequence[str], row: Callable[[int], dict[str, object]], *, limit: int, after: str | None
) -> dict[str, object]:
    """A page of a list, in OpenAI's form; `row` makes the one at an index."""
    start = ids.index(after) + 1 if after in ids else 0
    page = ids[start : start + limit]
    return {
        "object": "list",
        "data": [row(index) for index in range(start, start + len(page))],
        "first_id": page[0] if page else None,
        "last_id": page[-1] if page else None,
        "has_more": start + limit < len(ids),
    }
