"""What a Front and a node say to each other: a piece as a body of Jina's form, and the answer or error that it gets.

Vectors travel as base64: beside them are tokens and the errors of single inputs, which raw floats cannot carry. They
cost half a millisecond for a piece of 32 texts (measured).
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import orjson
import pybase64
from pydantic import BaseModel, ConfigDict, ValidationError

from proxy.errors import (
    BackendError,
    BackendLoading,
    BackendUnavailable,
    BadRequest,
    BodyTooLarge,
    DeadlineExceeded,
    Draining,
    InputTooLong,
    Overloaded,
    ProxyError,
)
from proxy.faults import Fault, Invalid, PoisonedInput
from proxy.types import EmbedRequest, EmbedResult, Matrix, Provenance

_INPUT = re.compile(r"\binput([ .])(\d+)\b")
_SIMPLE: Mapping[str, type[ProxyError]] = {
    one.code: one
    for one in (BadRequest, BodyTooLarge, InputTooLong, Overloaded, BackendUnavailable, BackendLoading, Draining)
}
_BY_STATUS: Mapping[int, type[ProxyError]] = {429: Overloaded, 503: BackendUnavailable, 504: DeadlineExceeded}
CALLERS_FAULT = frozenset({400, 413, 422})  # the same everywhere; any other status is the node's


class BrokenAnswer(Exception):
    """The answer is not what a node says; `args[0]` says how."""


@dataclass(frozen=True, slots=True)
class NodeAnswer:
    """A response as it came."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Count(_Body):
    input_tokens: int


class _InputError(_Body):
    code: str
    message: str


class _Row(_Body):
    embedding: str | None = None
    embeddings: list[str] | None = None
    error: _InputError | None = None


class _Usage(_Body):
    total_tokens: int
    image_tokens: int | None = None


class _Answer(_Body):
    model: str
    usage: _Usage
    data: list[_Row]


class _Fault(_Body):
    field: str
    message: str
    type: str = ""
    input: str = ""


class _Reason(_Body):
    param: str | None = None


class _Error(_Body):
    detail: str
    code: str
    error: _Reason = _Reason()
    errors: list[_Fault] = []


def piece_body(request: EmbedRequest, task: str, inputs: Sequence[object]) -> bytes:
    """The body that asks a node for the vectors of these inputs. Nothing is left to the node's own defaults."""
    fields = {
        "input": inputs,
        "task": task,
        "instruction": request.instruction,
        "dimensions": request.dimensions,
        "normalized": request.normalized,
        "truncate": request.truncate,
        "late_chunking": request.late,
        "return_multivector": request.multivector,
        "on_error": "partial" if request.partial else "fail",
        "embedding_type": "base64",
    }
    return orjson.dumps({name: value for name, value in fields.items() if value is not None})


def result_of(answer: NodeAnswer, inputs: int | None, dimensions: int | None) -> EmbedResult:
    """The vectors of a piece; `inputs` and `dimensions` are None where the node chooses them. Raises BrokenAnswer."""
    try:
        read = _Answer.model_validate(orjson.loads(answer.body))
        if inputs is not None and len(read.data) != inputs:
            raise BrokenAnswer(f"{len(read.data)} rows for {inputs} inputs")
        rows = [row for row in read.data if row.error is None]
        multi = any(row.embeddings is not None for row in rows)
        lengths = tuple(len(row.embeddings or ()) for row in rows) if multi else None
        vectors = _matrix([one for row in rows for one in row.embeddings or [row.embedding or ""]])
        prefix = str(json.loads(answer.headers["X-Trillama-Prefix"]))
        task, provenance = answer.headers["X-Trillama-Task"], _provenance(answer.headers)
    except (ValidationError, orjson.JSONDecodeError, ValueError, KeyError) as error:
        raise BrokenAnswer(f"not an embeddings answer: {str(error)[:200]}") from error
    if dimensions is not None and not multi and rows and vectors.shape[1] != dimensions:
        raise BrokenAnswer(f"vectors of {vectors.shape[1]} dimensions, not {dimensions}")
    return EmbedResult(
        model=read.model,
        task=task,
        prefix=prefix,
        provenance=provenance,
        vectors=vectors,
        tokens=read.usage.total_tokens,
        image_tokens=read.usage.image_tokens,
        failed={
            index: input_error(row.error.code, row.error.message)
            for index, row in enumerate(read.data)
            if row.error is not None
        },
        lengths=lengths,
    )


def input_error(code: str, message: str) -> ProxyError:
    """The error of a single input, from what its row says."""
    found = _INPUT.match(message)
    if code == PoisonedInput.code and found:
        return PoisonedInput(int(found[2]))
    if found and found[1] == ".":
        return Invalid(Fault(field=found[0], message=message[found.end() :].removeprefix(": "), type="", input=""))
    return _SIMPLE.get(code, BadRequest)(message, param="input")


def reindexed(error: ProxyError, by: int) -> ProxyError:
    """The error of an input whose index in the whole request is so much more than in its piece."""
    if isinstance(error, PoisonedInput):
        return PoisonedInput(error.index + by)
    if isinstance(error, Invalid):
        return Invalid(
            *(
                Fault(field=_reindexed(one.field, by), message=one.message, type=one.type, input=one.input)
                for one in error.faults
            )
        )
    same = type(error)(_reindexed(error.message, by), param=error.param, retry_after_s=error.retry_after_s)
    same.queue_tokens = error.queue_tokens
    return same


def tokens_of(answer: NodeAnswer) -> int:
    """The number of tokens in an answer. Raises BrokenAnswer."""
    try:
        return _Count.model_validate_json(answer.body).input_tokens
    except ValidationError as error:
        raise BrokenAnswer(f"not a number of tokens: {str(error)[:200]}") from error


def error_of(answer: NodeAnswer, node: str) -> ProxyError:
    """The error of a response that has no vectors. One of the caller's fault is a BadRequest."""
    try:
        read = _Error.model_validate(orjson.loads(answer.body))
    except (ValidationError, orjson.JSONDecodeError):
        read = _Error(detail=f"node {node} answered with status {answer.status}", code="")
    if answer.status in CALLERS_FAULT:
        return _callers_fault(read)
    if answer.status not in _BY_STATUS:
        return BackendError(f"node {node} answered with status {answer.status}: {read.detail}", retry_after_s=5)
    kind = _SIMPLE.get(read.code, _BY_STATUS[answer.status])
    if kind.status != answer.status:
        kind = _BY_STATUS[answer.status]
    error = kind(read.detail, retry_after_s=whole_number(answer.headers.get("Retry-After")))
    error.queue_tokens = whole_number(answer.headers.get("X-Queue-Tokens"))
    return error


def whole_number(header: str | None) -> int | None:
    return int(header) if header and header.isdecimal() else None


def _callers_fault(read: _Error) -> ProxyError:
    faults = [Fault(field=one.field, message=one.message, type=one.type, input=one.input) for one in read.errors]
    if not faults:
        return _SIMPLE.get(read.code, BadRequest)(read.detail, param=read.error.param)
    found = _INPUT.fullmatch(faults[0].field)
    if read.code == PoisonedInput.code and found:
        return PoisonedInput(int(found[2]))
    error = Invalid(*faults)
    error.message = read.detail  # which counts the faults that are not listed
    error.args = (read.detail,)
    return error


def _matrix(written: Sequence[str]) -> Matrix:
    """The rows of base64, all of one length. Raises ValueError."""
    rows = [pybase64.b64decode(one, validate=True) for one in written]
    if not rows:
        return np.empty((0, 0), dtype=np.float32)
    if len(set(map(len, rows))) != 1 or not rows[0]:
        raise ValueError("vectors of different lengths")
    vectors = np.frombuffer(b"".join(rows), dtype="<f4").reshape(len(rows), -1)
    if not np.isfinite(vectors).all():
        raise ValueError("a vector is not finite")
    return vectors


def _provenance(headers: Mapping[str, str]) -> Provenance:
    return Provenance(
        digest=headers["X-Trillama-Model-Digest"],
        quantization=headers["X-Trillama-Quantization"],
        engine=headers["X-Trillama-Engine"],
        pooling=headers["X-Trillama-Pooling"],
        space=headers["X-Trillama-Vector-Space"],
        image_space=headers.get("X-Trillama-Image-Space"),
    )


def _reindexed(text: str, by: int) -> str:
    return _INPUT.sub(lambda found: f"input{found[1]}{int(found[2]) + by}", text, count=1)
