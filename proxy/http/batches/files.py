"""The handlers of OpenAI's `/v1/files`."""

import time
from collections.abc import Sequence
from pathlib import Path

from aiohttp import web

from proxy.batches import apis
from proxy.batches.jobs import ResultFile
from proxy.batches.uploads import FileRecord, Upload
from proxy.edge.body import BodyLimits, read_form
from proxy.faults import invalid
from proxy.http.batches.shared import (
    disk_errors,
    in_thread,
    kept_s_of,
    limit_of,
    number_of,
    owner_of,
    send_files,
    stored,
)
from proxy.http.responses import send
from proxy.wire.form import Form

UPLOAD_LIMITS = web.AppKey("upload_limits", BodyLimits)
MAX_NAME = 255  # characters


async def upload_file(request: web.Request) -> web.StreamResponse:
    """`POST /v1/files`: upload a file of requests for a batch."""
    files, jobs = stored(request)
    with disk_errors():
        async with files.receiving() as upload:
            form = await read_form(request, request.app[UPLOAD_LIMITS], upload.write)
            record = _file_record(request, upload, form)
            await upload.keep(record)
    return await send(request, apis.file_answer(record, jobs.storage.limits.kept_s))


async def list_files(request: web.Request) -> web.StreamResponse:
    """`GET /v1/files`: the files that are kept for this key, the newest first; `limit`, `after`, `purpose`."""
    return await send(request, await in_thread(request, _files_page))


async def get_file(request: web.Request) -> web.StreamResponse:
    """`GET /v1/files/{id}`: what a file is."""
    return await send(request, await in_thread(request, lambda asked: _file_answer(asked, _found(asked))))


async def file_content(request: web.Request) -> web.StreamResponse:
    """`GET /v1/files/{id}/content`: the file, JSON Lines."""

    def paths(asked: web.Request) -> Sequence[Path]:
        found = _found(asked)
        return found.paths if isinstance(found, ResultFile) else [stored(asked)[0].content(found.id)]

    return await send_files(request, await in_thread(request, paths))


async def delete_file(request: web.Request) -> web.StreamResponse:
    """`DELETE /v1/files/{id}`: delete a file. A batch that was made from it keeps its lines until it ends."""

    def delete(asked: web.Request) -> None:
        found = _found(asked)
        if isinstance(found, ResultFile):
            found.delete()
        else:
            stored(asked)[0].delete(found.id)

    await in_thread(request, delete)
    return await send(request, {"id": request.match_info["id"], "object": "file", "deleted": True})


def _found(request: web.Request) -> FileRecord | ResultFile:
    """The uploaded file, or the result, of the path's id. Raises NotFound."""
    files, jobs = stored(request)
    client, file_id = owner_of(request), request.match_info["id"]
    return jobs.result(client, file_id) or files.get(client, file_id)


def _file_answer(request: web.Request, found: FileRecord | ResultFile) -> dict[str, object]:
    if isinstance(found, ResultFile):
        return apis.result_answer(found.job, found.kind, found.size, kept_s_of(request))
    return apis.file_answer(found, kept_s_of(request))


def _files_page(request: web.Request) -> dict[str, object]:
    (files, jobs), client = stored(request), owner_of(request)
    found: list[tuple[float, str, FileRecord | ResultFile]] = []
    purpose = request.query.get("purpose")
    if purpose in {None, apis.PURPOSE}:
        found += [(one.created_at, one.id, one) for one in files.of(client)]
    if purpose in {None, apis.RESULT_PURPOSE}:
        results = [ResultFile(job, kind) for job, kind in jobs.results_of(client)]
        found += [(one.job.state.ended_at or 0, one.job.result_id(one.kind), one) for one in results]
    found.sort(key=lambda one: one[:2], reverse=request.query.get("order") != "asc")
    ids, files_found = [one[1] for one in found], [one[2] for one in found]
    limit, after = limit_of(request, most=10_000, usual=10_000), request.query.get("after")
    return apis.listed(ids, lambda index: _file_answer(request, files_found[index]), limit=limit, after=after)


def _file_record(request: web.Request, upload: Upload, form: Form) -> FileRecord:
    """What is kept of an upload beside its content. Raises Invalid."""
    if form.filename is None:
        raise invalid("file", "is required", kind="missing")
    if (purpose := form.fields.get("purpose")) != apis.PURPOSE:
        message = f"must be {apis.PURPOSE!r}: files are kept for batches only"
        raise invalid("purpose", message, given=purpose or "")
    created_at, expires_at = time.time(), None
    if (seconds := form.fields.get("expires_after[seconds]")) is not None:
        expires_at = created_at + number_of(seconds, "expires_after.seconds", apis.MIN_KEPT_S, apis.MAX_KEPT_S)
    return FileRecord(
        id=upload.id,
        client=owner_of(request),
        filename=form.filename[:MAX_NAME],
        purpose=purpose,
        bytes=upload.size,
        created_at=created_at,
        expires_at=expires_at,
    )
