"""`log_format = "json"`: every line of the launcher and of the proxy, whatever happens, is one object of JSON."""

import json
import signal

import aiohttp

from launcher.settings.config import configs_dir
from proxy.contract.settings_file import read_toml
from tests.support.servers.serve import Serve, quick_engine, trillama_serve

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


async def test_every_line_is_an_object_whatever_happens() -> None:
    config = {
        **read_toml(configs_dir() / "demo-tiny.toml"),
        "max_input_tokens": 256,
        "engine": quick_engine(),
        "supervision": {"quick_delay_s": 0.1},
        "proxy": {"log_format": "json"},
    }
    async with trillama_serve(config) as serve:
        await _embed(serve)
        await serve.until(TRACE)
        await serve.kill("code.sock")
        await serve.until("code: backoff")
        await serve.until("code: ready")
        serve.config.write_text("port = 1", encoding="utf-8")
        serve.process.send_signal(signal.SIGHUP)
        await serve.until("reload failed")
        serve.process.send_signal(signal.SIGTERM)
        assert await serve.ended() == 0
    lines = [json.loads(line) for line in serve.output if line]
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    (request,) = [line for line in lines if line.get("trace_id") == TRACE]
    expected = {"request_id": "mine", "route": "/v1/embeddings", "status": 200, "inputs": 2, "logger": "proxy.request"}
    assert {name: request[name] for name in expected} == expected
    assert request["ms"] >= request["compute_ms"] > 0
    assert request["tokens"] > 2
    assert {line["level"] for line in lines if line.get("state") == "backoff"} == {"warning"}
    assert {line["backend"] for line in lines if line.get("state") == "ready"} == {"retrieval", "code", "text-matching"}


async def test_the_reason_of_a_failed_start_is_an_object_too() -> None:
    config = {"models": {"files": {"code": "/nowhere.gguf"}}, "proxy": {"log_format": "json"}}
    async with trillama_serve(config, ready=False) as serve:
        assert await serve.ended() == 66
    lines = [json.loads(line) for line in serve.output if line]
    assert lines[-1]["level"] == "error"
    assert "/nowhere.gguf" in lines[-1]["message"]


async def _embed(serve: Serve) -> None:
    headers = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01", "X-Request-ID": "mine"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{serve.url}/v1/embeddings", json={"input": ["a", "b"]}, headers=headers) as response,
    ):
        assert response.status == 200
