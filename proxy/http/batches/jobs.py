"""The handlers of OpenAI's `/v1/batches` and of Jina's `/v1/batch`."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from aiohttp import web

from proxy.batches import apis
from proxy.batches.jobs import BatchJob, linked, made_of
from proxy.batches.records import ENDED, BatchApi, ResultKind, new_spec
from proxy.dialects import jina
from proxy.errors import NotFound
from proxy.http.batches.shared import in_thread, kept_s_of, limit_of, owner_of, send_files, stored
from proxy.http.pages import SERVICE
from proxy.http.responses import send
from proxy.http.service import EmbeddingService
from proxy.quoting import quoted


async def create_batch(request: web.Request, wire: apis.CreateBatchBody) -> web.StreamResponse:
    """`POST /v1/batches`: begin a batch with the requests of an uploaded file."""
    client = owner_of(request)

    def create(asked: web.Request) -> BatchJob:
        files, jobs = stored(asked)
        try:
            source = files.get(client, wire.input_file_id)
        except NotFound as error:
            raise NotFound(error.message, param="input_file_id") from error
        kept_s = wire.output_expires_after.seconds if wire.output_expires_after else None
        spec = new_spec(client, BatchApi.OPENAI, input_file_id=source.id, metadata=wire.metadata, kept_s=kept_s)
        return jobs.create(spec, linked(files.content(source.id)))

    return await _send_batch(request, await in_thread(request, create))


async def list_batches(request: web.Request) -> web.StreamResponse:
    """`GET /v1/batches`: this key's batches, of both APIs, the newest first; `limit`, `after`."""

    def page(asked: web.Request) -> dict[str, object]:
        jobs = stored(asked)[1]
        mine, kept_s = jobs.of(owner_of(asked)), jobs.storage.limits.kept_s
        ids = [job.spec.id for job in mine]
        limit, after = limit_of(asked, most=100, usual=20), asked.query.get("after")
        return apis.listed(ids, lambda index: apis.batch_answer(mine[index], kept_s), limit=limit, after=after)

    return await send(request, await in_thread(request, page))


async def get_batch(request: web.Request) -> web.StreamResponse:
    """`GET /v1/batches/{id}`: how far a batch is, as OpenAI describes it."""
    return await _send_batch(request, await in_thread(request, _job))


async def cancel_batch(request: web.Request) -> web.StreamResponse:
    """`POST /v1/batches/{id}/cancel`: stop a batch; the lines that are done stay."""

    def cancel(asked: web.Request) -> BatchJob:
        stored(asked)[1].cancel(_job(asked))
        return _job(asked)

    return await _send_batch(request, await in_thread(request, cancel))


async def submit_batch(request: web.Request, wire: apis.BatchEmbeddingsBody) -> web.StreamResponse:
    """`POST /v1/batch/embeddings`: begin a batch with the given inputs, as Jina's API does."""
    client = owner_of(request)
    _check_common(request.app[SERVICE], wire)

    def create(asked: web.Request) -> BatchJob:
        jobs = stored(asked)[1]
        return jobs.create(new_spec(client, BatchApi.JINA), made_of(apis.lines_of(wire), jobs.storage))

    job = await in_thread(request, create)
    return await send(request, apis.status_answer(job, kept_s_of(request)), status=202)


def _check_common(service: EmbeddingService, wire: apis.BatchEmbeddingsBody) -> None:
    """Refuse at once what would fail each line. Raises what `/v1/embeddings` raises for such a request."""
    one = jina.parse({"input": "text", **apis.common_fields(wire)}).request
    service.limits.check(one)
    service.tasks.route(one.model, one.task, one.role)


async def batch_status(request: web.Request) -> web.StreamResponse:
    """`GET /v1/batch/{id}`: how far a batch is, as Jina describes it."""
    answer = await in_thread(request, lambda asked: apis.status_answer(_job(asked), kept_s_of(asked)))
    return await send(request, answer)


async def batch_output(request: web.Request) -> web.StreamResponse:
    """`GET /v1/batch/{id}/output`: the lines with vectors, JSON Lines."""
    return await send_files(request, await in_thread(request, lambda asked: _results(asked, ResultKind.OUTPUT)))


async def batch_errors(request: web.Request) -> web.StreamResponse:
    """`GET /v1/batch/{id}/errors`: the lines that failed, JSON Lines."""
    return await send_files(request, await in_thread(request, lambda asked: _results(asked, ResultKind.ERRORS)))


async def delete_batch(request: web.Request) -> web.StreamResponse:
    """`DELETE /v1/batch/{id}`: cancel a batch, or delete one that has ended, with its results."""

    def delete(asked: web.Request) -> dict[str, object]:
        jobs, job = stored(asked)[1], _job(asked)
        if job.state.status in ENDED:
            jobs.delete(job)
        else:
            jobs.cancel(job)
        return apis.status_answer(job, kept_s_of(asked))

    return await send(request, await in_thread(request, delete))


def _job(request: web.Request) -> BatchJob:
    return stored(request)[1].get(owner_of(request), request.match_info["id"])


def _results(request: web.Request, kind: ResultKind) -> Sequence[Path]:
    """Empty if no line of a job that has ended is of that kind. Raises NotFound for one that has not."""
    job = _job(request)
    if job.state.status not in ENDED:
        raise NotFound(f"batch {quoted(job.spec.id)} is not done yet: its status is {job.status}")
    return job.results(kind)


async def _send_batch(request: web.Request, job: BatchJob) -> web.StreamResponse:
    return await send(request, await asyncio.to_thread(apis.batch_answer, job, kept_s_of(request)))
