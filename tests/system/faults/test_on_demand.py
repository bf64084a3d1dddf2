"""Backends that start with their first request, sleep when nobody needs them, and restart while requests wait."""

import asyncio
import json
from collections.abc import Mapping

import aiohttp
import pytest

from tests.support.servers.serve import Serve, quick_engine, trillama_serve
from tests.support.servers.stack import small_family
from tests.system.faults.test_faults import TASKS, stopped


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    file, models = small_family(tmp_path_factory.mktemp("demanded"))
    return {
        "family": str(file),
        "max_input_tokens": 512,
        "models": {"files": {name: str(path) for name, path in models.items()}},
        "engine": quick_engine(),
        "backends": {"code": {"mode": "on-demand", "idle_s": 1.0}, "text-matching": {"mode": "on-demand"}},
    }


async def states(serve: Serve) -> Mapping[str, str]:
    code, output = await serve.command("status", "--json")
    assert code == 0, output
    return {one["name"]: one["state"] for one in json.loads(output)["backends"]}


async def embed(serve: Serve, backend: str, count: int = 1) -> int:
    """The status of one request."""
    body = {"input": [f"text {n}" for n in range(count)], "task": TASKS[backend]}
    async with aiohttp.ClientSession() as session, session.post(f"{serve.url}/v1/embeddings", json=body) as response:
        answer = await response.json()
        assert response.status != 200 or len(answer["data"]) == count
        return response.status


async def test_it_starts_with_its_first_requests_and_sleeps_when_it_is_idle(config: dict[str, object]) -> None:
    async with trillama_serve(config) as serve:
        assert await states(serve) == {"retrieval": "ready", "code": "sleeping", "text-matching": "sleeping"}
        assert not [one for one in serve.children() if "code.sock" in " ".join(one.cmdline())]
        assert await asyncio.gather(*(embed(serve, "code", count) for count in (1, 30, 3))) == [200] * 3
        await serve.until("code: ready")
        await serve.until("code: sleeping")
        assert await embed(serve, "code") == 200
        assert (await states(serve))["text-matching"] == "sleeping"
        await stopped(serve)


async def test_a_restart_loses_no_request(config: dict[str, object]) -> None:
    config = {**config, "backends": {}, "proxy": {"log_level": "warning"}}  # nobody reads a line for each request
    async with trillama_serve(config) as serve:
        done = asyncio.Event()

        async def ask() -> list[int]:
            found = []
            while not done.is_set():
                found.append(await embed(serve, "retrieval", 5))
            return found

        async with asyncio.TaskGroup() as tasks:
            asking = [tasks.create_task(ask()) for _ in range(4)]
            for _ in range(3):
                code, output = await serve.command("restart", "retrieval")
                assert code == 0, output
            done.set()
        statuses = [status for one in asking for status in one.result()]
        assert set(statuses) == {200}
        assert len(statuses) > 4


async def test_the_proxy_killed_while_one_sleeps_does_not_wake_it(config: dict[str, object]) -> None:
    async with trillama_serve(config) as serve:
        assert await embed(serve, "code") == 200
        await serve.kill("proxy.toml")
        await serve.until("the proxy exited")
        async with asyncio.timeout(20):
            while await embed_if_up(serve, "retrieval") != 200:
                await asyncio.sleep(0.05)
        assert await embed(serve, "code") == 200  # it runs: the new proxy is told
        assert (await states(serve))["text-matching"] == "sleeping"
        assert await embed(serve, "text-matching") == 200


async def embed_if_up(serve: Serve, backend: str) -> int:
    try:
        return await embed(serve, backend)
    except aiohttp.ClientError:
        return 0


async def test_flags_that_are_not_the_user_s_to_set_are_refused(config: dict[str, object]) -> None:
    config = {**config, "engine": {"gpu_layers": 0, "threads": 1, "extra_flags": ["--no-such-flag"]}}
    async with trillama_serve(config, ready=False) as serve:
        assert await serve.ended() == 78
        assert "this llama-server has no --no-such-flag" in "".join(serve.output)
    config = {**config, "engine": {"gpu_layers": 0, "extra_flags": ["--port", "1"]}}
    async with trillama_serve(config, ready=False) as serve:
        assert await serve.ended() == 78
        assert "--port is set by trillama itself" in "".join(serve.output)


async def test_the_second_backend_of_a_model_starts_for_many_chunks_and_sleeps_again(config: dict[str, object]) -> None:
    config = {**config, "backends": {}, "late_chunking": {"token_level": True, "idle_s": 1.0}, "max_input_tokens": 2048}
    chunks = ["the fox "] * 500
    body = {"input": chunks, "task": "code.passage", "late_chunking": True}
    async with trillama_serve(config) as serve, aiohttp.ClientSession() as session:
        assert (await states(serve))["code-tokens"] == "sleeping"
        async with session.post(f"{serve.url}/v1/embeddings", json=body) as response:
            assert response.status == 200, await response.text()
        await serve.until("code-tokens: ready")
        await serve.until("code-tokens: sleeping")
        await stopped(serve)
