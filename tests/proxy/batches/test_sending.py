"""Files as responses."""

from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from proxy.http.batches.shared import send_files

LARGER_THAN_BUFFERS = 2**26


async def test_a_result_that_is_deleted_while_it_is_sent_ends_the_connection(tmp_path: Path) -> None:
    first, second, faults = tmp_path / "first", tmp_path / "second", list[Exception]()
    for path in (first, second):
        with path.open("wb") as file:
            file.truncate(LARGER_THAN_BUFFERS)

    async def handler(request: web.Request) -> web.StreamResponse:
        try:
            return await send_files(request, [first, second])
        except Exception as error:
            faults.append(error)
            raise

    app = web.Application()
    app.router.add_get("/", handler)
    async with TestServer(app) as server, aiohttp.ClientSession() as session, session.get(server.make_url("/")) as got:
        second.unlink()
        with pytest.raises(aiohttp.ClientPayloadError):
            await got.read()
    assert not faults
