"""`trillama serve` from start to end, with real processes: it serves, and leaves nothing behind however it ends."""

import asyncio
import contextlib
import signal
import socket
from pathlib import Path

import aiohttp
import pytest

from tests.support.engines.engine import native_binary
from tests.support.servers.serve import Serve, empty, gone, trillama_serve
from tests.support.servers.stack import BACKENDS, write_models

LONG = "a long text " * 150  # some hundred tokens
PROCESSES = len(BACKENDS) + 2  # the proxy and the sweeper


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_models(tmp_path_factory.mktemp("served"))


@pytest.fixture
def config(models: dict[str, Path], engine_kind: str) -> dict[str, object]:
    engine: dict[str, object] = {"gpu_layers": 0, "threads": 1}
    if engine_kind == "native":
        engine["llama_server"] = str(native_binary())
    return {
        "max_input_tokens": 2048,
        "models": {"files": {name: str(path) for name, path in models.items()}},
        "engine": engine,
        "supervision": {"grace_s": 5.0, "probe_interval_s": 0.2, "quick_delay_s": 0.1},
    }


async def embed(serve: Serve, texts: list[str], **fields: object) -> int:
    """The status of one request."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{serve.url}/v1/embeddings", json={"input": texts, **fields}) as response,
    ):
        await response.read()
        return response.status


async def answered(serve: Serve, task: str) -> None:
    """Wait until a request of that task is answered."""
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                if await embed(serve, ["a"], task=task) == 200:
                    return
            await asyncio.sleep(0.05)


async def metrics(serve: Serve) -> dict[str, float]:
    """The samples of `/metrics`, by name and labels."""
    async with aiohttp.ClientSession() as session, session.get(f"{serve.url}/metrics") as response:
        lines = (await response.text()).splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}


async def test_it_serves_every_backend_on_private_sockets(config: dict[str, object]) -> None:
    async with trillama_serve(config) as serve:
        for task in ("retrieval.query", "code.query", "text-matching"):
            assert await embed(serve, ["a"], task=task) == 200
        (folder,) = serve.runtime.iterdir()
        assert folder.stat().st_mode & 0o777 == 0o700
        assert {path.name for path in folder.glob("*.sock")} == {
            "control.sock",
            "proxy-1.sock",
            *(f"{name}.sock" for name in BACKENDS),
        }
        listening = [c for one in serve.children() for c in one.net_connections("inet") if c.status == "LISTEN"]
        assert [c.laddr.port for c in listening] == [int(serve.url.rsplit(":", 1)[1])]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_it_with_nothing_left(config: dict[str, object], signum: signal.Signals) -> None:
    async with trillama_serve(config) as serve:
        children = serve.children()
        assert len(children) == PROCESSES
        serve.process.send_signal(signum)
        assert await serve.ended() == 0
        await gone(children)
        await empty(serve.runtime)


async def test_sigterm_with_requests_queued_answers_them_and_ends(config: dict[str, object]) -> None:
    """llama-server itself hangs here until its clients hang up (trap T6)."""
    async with trillama_serve(config) as serve:
        children = serve.children()
        texts = [[f"{request} {number} {LONG}" for number in range(64)] for request in range(8)]
        requests = [asyncio.ensure_future(embed(serve, one)) for one in texts]
        await asyncio.wait(requests, timeout=0.5)
        serve.process.send_signal(signal.SIGTERM)
        statuses = await asyncio.gather(*requests)
        assert await serve.ended() == 0
        assert set(statuses) <= {200, 503}
        assert 503 in statuses
        await gone(children)
        await empty(serve.runtime)


async def test_sigkill_of_the_launcher_leaves_no_process_and_no_socket(config: dict[str, object]) -> None:
    async with trillama_serve(config) as serve:
        children = serve.children()
        serve.process.kill()
        await serve.ended()
        await gone(children)
        await empty(serve.runtime)


@pytest.mark.parametrize("engine_kind", ["embedded"], indirect=True)
@pytest.mark.parametrize(("victim", "task"), [("code.sock", "code.query"), ("proxy.toml", "retrieval.query")])
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_child_that_dies_or_hangs_is_restarted_and_the_others_stay(
    config: dict[str, object], victim: str, task: str, signum: signal.Signals
) -> None:
    async with trillama_serve(config) as serve:
        before = {one.pid for one in serve.children()}
        hit = serve.child(victim)
        hit.send_signal(signum)
        await gone([hit])
        await answered(serve, task)
        after = {one.pid for one in serve.children()}
        assert len(before - after) == len(after - before) == 1
        restarted = {victim.removesuffix(".sock")} & set(BACKENDS)
        found = await metrics(serve)
        assert {name for name in BACKENDS if found[f'trillama_backend_restarts_total{{backend="{name}"}}']} == restarted
        assert all(
            found[f'trillama_backend_memory_bytes{{backend="{name}",device="RAM",kind="resident"}}'] > 2**20
            for name in BACKENDS
        )
        serve.process.send_signal(signal.SIGTERM)
        assert await serve.ended() == 0
        await empty(serve.runtime)


@pytest.mark.parametrize("engine_kind", ["embedded"], indirect=True)
async def test_ctrl_c_while_loading_leaves_nothing(config: dict[str, object]) -> None:
    async with trillama_serve(config, ready=False) as serve:
        await serve.until("starting")
        children = serve.children()
        serve.process.send_signal(signal.SIGINT)
        assert await serve.ended() == 0
        await gone(children)
        await empty(serve.runtime)


@pytest.mark.parametrize("engine_kind", ["embedded"], indirect=True)
async def test_a_taken_port_is_reported_before_anything_starts(config: dict[str, object]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with trillama_serve({**config, "port": port}, ready=False) as serve:
            assert await serve.ended() == 75
            said = f"cannot listen on 127.0.0.1:{port}: Address already in use; choose another with --port\n"
            assert said in "".join(serve.output)


@pytest.mark.parametrize("engine_kind", ["embedded"], indirect=True)
async def test_serving_the_network_without_keys_is_reported(config: dict[str, object]) -> None:
    async with trillama_serve({**config, "host": "0.0.0.0"}) as serve:
        assert "anyone who reaches 0.0.0.0" in "".join(serve.output)
        assert serve.url in serve.output[-1]


@pytest.mark.parametrize("engine_kind", ["embedded"], indirect=True)
async def test_of_two_starts_on_one_port_the_second_says_so(config: dict[str, object]) -> None:
    async with (
        trillama_serve(config, ready=False) as first,
        trillama_serve({**config, "port": int(first.url.rsplit(":", 1)[1])}, ready=False) as second,
    ):
        codes = await asyncio.gather(first.until("is ready at"), second.until("is ready at"), return_exceptions=True)
        (loser,) = [one for one, result in zip((first, second), codes, strict=True) if result is not None]
        assert await loser.ended() == 75
        assert "cannot listen" in "".join(loser.output)
        assert await embed(first, ["a"]) == 200


@pytest.mark.parametrize("engine_kind", ["embedded"], indirect=True)
@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        ({"modells": {}}, 78, "modells"),
        ({"family": "no-such"}, 78, "there is none of that name"),
        ({"proxy": {"port": 1}}, 78, "[proxy] must not set port"),
        ({"proxy": {"api_keyz": []}}, 78, "api_keyz"),
        ({"models": {"files": {"nobody": "/x"}}}, 78, "nobody"),
        ({"models": {"files": dict.fromkeys(BACKENDS, "/no/such.gguf")}}, 66, "/no/such.gguf"),
        ({"models": {"quantization": "Q9"}}, 66, "Q4_K_M"),
        ({"engine": {"llama_server": "/no/such/llama-server"}}, 69, "/no/such/llama-server"),
    ],
)
async def test_what_cannot_work_is_reported_with_its_exit_code(
    config: dict[str, object], change: dict[str, object], code: int, message: str
) -> None:
    async with trillama_serve({**config, **change}, ready=False) as serve:
        assert await serve.ended() == code
        assert message in "".join(serve.output)
        assert "Traceback" not in "".join(serve.output)
        assert not serve.runtime.exists() or not any(serve.runtime.iterdir())
