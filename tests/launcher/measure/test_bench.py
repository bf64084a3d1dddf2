"""`trillama bench`: a server's figures, and its report of one whose vectors are wrong."""

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from aiohttp import web

from launcher.errors import ArgumentError, LauncherError
from launcher.measure import bench
from launcher.measure.bench import Load, measure
from launcher.measure.loadgen import LENGTHS
from tests.support.servers.stack import small_host
from tests.support.servers.trillama import commands

QUICK = Load(seconds=0.05, seed=1)


def test_a_server_is_started_measured_and_every_vector_checked(tmp_path: Path) -> None:
    with commands({"TRILLAMA_CACHE": str(tmp_path), "LOGS_DIRECTORY": str(tmp_path)}) as run:
        config = small_host(tmp_path)
        done = run("bench", "--config", str(config), "--seconds", "0.1", "--json")
        alone = run("bench", "--url", "http://127.0.0.1:9")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["faults"] == []
    assert found["worst_cosine"] > 0.9999
    cells = found["cells"]
    assert [(one["kind"], one["clients"]) for one in cells] == [(kind, n) for kind in LENGTHS for n in (1, 8, 32)]
    first = [one for one in cells if one["clients"] == 1]
    assert all(one["summary"]["failed"] == 0 < one["summary"]["p50_s"] <= one["summary"]["p99_s"] for one in first)
    assert [one["tokens_per_text"] for one in first[:3]] == pytest.approx([18, 130, 1002], rel=0.1)
    assert all(one["summary"] or one["needs_s"] > 0.4 for one in cells)  # what is too slow says so
    assert (alone.code, "http://127.0.0.1:9 does not accept connections" in alone.err) == (69, True)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("none", ""),
        ("others", "depends on other requests: cosine 0.70"),
        ("nan", "vectors were zero or not finite"),
        ("refuses", "a request failed: status 500: no"),
    ],
)
async def test_a_server_that_is_wrong_is_found_out(fault: str, words: str) -> None:
    async with _server(fault) as url, bench.connected(url, None, {}) as asking:
        found = await measure(asking, QUICK, lambda _: None)
    assert words in "; ".join(found.faults)
    assert bool(found.faults) == (fault != "none")


async def test_a_server_that_rejects_everything_is_not_measured() -> None:
    async with _server("refuses all") as url, bench.connected(url, None, {}) as asking:
        with pytest.raises(LauncherError, match="the server cannot be measured: status 500"):
            await measure(asking, QUICK, lambda _: None)


async def test_a_task_that_the_server_does_not_have_is_a_wrong_argument_in_the_server_s_words() -> None:
    async with _server("no such task") as url, bench.connected(url, "nope", {}) as asking:
        with pytest.raises(ArgumentError, match=r"cannot be measured: status 422: task: unknown task 'nope'$"):
            await measure(asking, QUICK, lambda _: None)


@asynccontextmanager
async def _server(fault: str) -> AsyncIterator[str]:
    """Answers with the vector (1, 0), but for its fault when it is asked for a text again, beside others."""
    seen = set[str]()

    async def embeddings(request: web.Request) -> web.Response:
        if fault == "no such task":
            return web.json_response({"detail": "task: unknown task 'nope'", "code": "VALIDATION_ERROR"}, status=422)
        asked = (await request.json())["input"]
        bad = asked[0] in seen
        seen.add(asked[0])
        if fault == "refuses all" or (bad and fault == "refuses"):
            return web.Response(status=500, text="no")
        vector = np.array([1, {"others": 1.0, "nan": np.nan}.get(fault, 0) if bad else 0], "<f4")
        row = {"embedding": base64.b64encode(vector.tobytes()).decode()}
        tokens = sum(len(one.split()) for one in asked)
        return web.json_response({"data": [row] * len(asked), "usage": {"total_tokens": tokens}})

    app = web.Application()
    app.router.add_post("/v1/embeddings", embeddings)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
