"""A batch job survives its proxy: killed, and replaced at a reload, every line is answered once, and rightly."""

import signal
from collections.abc import Mapping
from pathlib import Path

import aiohttp
import numpy as np
import orjson

from proxy.batches.lines import PART_LINES
from tests.support.polling import until
from tests.support.servers.serve import Serve, quick_engine, trillama_serve
from tests.support.servers.stack import small_family
from tests.system.faults.test_operate import write

LINES = 1500
TEXT = "the quick brown fox jumps over the lazy dog and the other dogs that sleep in the sun, number {}"


def parts_done(serve: Serve) -> int:
    return len(list(serve.logs.glob("batches/*/jobs/batch_*/parts/*.done")))


async def more_parts(serve: Serve) -> None:
    """Wait until the job has got on, or on a fast machine is done."""
    enough = min(parts_done(serve) + 2, LINES // PART_LINES)

    async def got_on() -> bool:
        return parts_done(serve) >= enough

    await until(got_on)


async def asked(serve: Serve, method: str, path: str, **more: object) -> bytes | None:
    """The body of an answer; None while the proxy is starting."""
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, serve.url + path, **more) as response,  # type: ignore[arg-type] # a body
        ):
            body = await response.read()
            assert response.status == 200, body
            return body
    except aiohttp.ClientError:
        return None


async def begun(serve: Serve, lines: list[bytes]) -> str:
    form = aiohttp.FormData({"purpose": "batch"})
    form.add_field("file", b"\n".join(lines).decode(), filename="lines.jsonl")
    file = orjson.loads(await asked(serve, "POST", "/v1/files", data=form) or b"")
    body = {"input_file_id": file["id"], "endpoint": "/v1/embeddings", "completion_window": "24h"}
    return str(orjson.loads(await asked(serve, "POST", "/v1/batches", json=body) or b"")["id"])


async def completed(serve: Serve, batch: str) -> Mapping[str, object]:
    async def ended() -> Mapping[str, object] | None:
        status = orjson.loads(await asked(serve, "GET", f"/v1/batches/{batch}") or b"null")
        return status if status and status["status"] not in {"validating", "in_progress"} else None

    return await until(ended)


async def test_killed_and_replaced_proxies_leave_every_line_answered_once(tmp_path: Path) -> None:
    family, models = small_family(tmp_path)
    config: dict[str, object] = {
        "family": str(family),
        "max_input_tokens": 512,
        "models": {"files": {name: str(path) for name, path in models.items()}},
        "engine": quick_engine(),
        "supervision": {"quick_delay_s": 0.1, "probe_interval_s": 0.1},  # a proxy that was never seen up is given up
    }
    bodies = [{"input": TEXT.format(n), "task": "retrieval.passage"} for n in range(LINES)]
    lines = [orjson.dumps({"custom_id": f"{n}", "url": "/v1/embeddings", "body": one}) for n, one in enumerate(bodies)]
    async with trillama_serve(config) as serve:
        batch = await begun(serve, lines)
        for _ in range(3):
            await more_parts(serve)
            await serve.kill("proxy.toml")
        await more_parts(serve)
        write(serve, {**config, "proxy": {"log_level": "warning"}})
        serve.process.send_signal(signal.SIGHUP)
        await serve.until("has been read again")
        status = await completed(serve, batch)
        assert status["status"] == "completed"
        assert status["request_counts"] == {"total": LINES, "completed": LINES, "failed": 0}
        output = await asked(serve, "GET", f"/v1/files/{status['output_file_id']}/content") or b""
        rows = [orjson.loads(line) for line in output.splitlines()]
        assert [row["custom_id"] for row in rows] == [f"{n}" for n in range(LINES)]
        for n in range(0, LINES, 97):
            direct = orjson.loads(await asked(serve, "POST", "/v1/embeddings", json=bodies[n]) or b"")
            found = rows[n]["response"]["body"]
            difference = np.subtract(found["data"][0]["embedding"], direct["data"][0]["embedding"])
            assert np.abs(difference).max() < 1e-3
            assert found["usage"] == direct["usage"]
