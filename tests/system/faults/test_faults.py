"""Faults of one child: the cause is reported, it is retried, the others serve, and nothing is left at the end."""

import asyncio
import contextlib
import os
import signal
import stat
import sys
from pathlib import Path

import aiohttp
import psutil
import pytest

from launcher.engine.argv import REQUIRED_FLAGS
from launcher.processes.child_log import EARLIER_FILES, FILE_BYTES
from tests.support.engines import faulty
from tests.support.servers.serve import Serve, empty, gone, trillama_serve
from tests.support.servers.stack import small_family

TASKS = {"retrieval": "retrieval.query", "text-matching": "text-matching", "code": "code.query"}


@pytest.fixture(scope="module")
def faulty_engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    script = tmp_path_factory.mktemp("faulty") / "llama-server"
    flags = " ".join(sorted({*REQUIRED_FLAGS, "--list-devices", "--device"}))
    command = f'FAULTY_FLAGS="{flags}" exec {sys.executable} -S {faulty.__file__} "$@"'
    script.write_text(f"#!/bin/sh\n{command}\n", encoding="utf-8")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return script


@pytest.fixture
def config(faulty_engine: Path, tmp_path: Path) -> dict[str, object]:
    family, models = small_family(tmp_path)
    return {
        "family": str(family),
        "max_input_tokens": 512,
        "models": {"files": {name: str(path) for name, path in models.items()}},
        "engine": {"llama_server": str(faulty_engine), "gpu_layers": 0},
        "supervision": {
            "grace_s": 0.5,
            "stall_s": 1.0,
            "probe_interval_s": 0.1,
            "canary_interval_s": 0.2,
            "canary_timeout_s": 1.0,
            "first_delay_s": 0.1,
            "quick_delay_s": 0.02,
            "max_delay_s": 0.1,
            "max_failures": 1000,
        },
    }


async def status(serve: Serve, backend: str) -> int:
    """The status of one request to that backend."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{serve.url}/v1/embeddings", json={"input": ["a"], "task": TASKS[backend]}) as response,
    ):
        await response.read()
        return response.status


async def until(serve: Serve, backend: str, wanted: int) -> None:
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                if await status(serve, backend) == wanted:
                    return
            await asyncio.sleep(0.05)


async def stopped(serve: Serve) -> None:
    children = serve.children()
    serve.process.send_signal(signal.SIGTERM)
    assert await serve.ended() == 0
    await gone(children)
    await empty(serve.runtime)


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("never ready", "made no progress for 1 s"),
        ("answers nothing", "the canary got no answer"),
        ("answers garbage", "not embeddings"),
        ("answers NaN", "not finite"),
        ("answers short vectors", "32 dimensions, not 64"),
        ("exits", "exited with 1 while starting: error: out of something"),
    ],
)
async def test_a_child_that_never_passes_its_check_is_retried_while_the_others_serve(
    config: dict[str, object], fault: str, cause: str
) -> None:
    async with trillama_serve(config, ready=False, env={"FAULTY": f"code={fault}"}) as serve:
        for _ in range(2):
            await serve.until("code: backoff")
            assert cause in serve.output[-1]
            assert "next try in 0.1 s" in serve.output[-1]
        await until(serve, "retrieval", 200)
        await until(serve, "text-matching", 200)
        assert await status(serve, "code") in (502, 503)
        if not any("code is not served" in line for line in serve.output):
            await serve.until("code is not served")  # ready is said for the others
        await stopped(serve)


async def test_one_that_has_failed_too_often_is_still_retried_but_rarely(config: dict[str, object]) -> None:
    seldom = {**config["supervision"], "max_failures": 0, "failed_retry_s": 0.5}  # type: ignore[dict-item] # made above
    async with trillama_serve({**config, "supervision": seldom}, ready=False, env={"FAULTY": "code=exits"}) as serve:
        for _ in range(2):
            await serve.until("code: failed")
            await serve.until("code: starting")
        await until(serve, "retrieval", 200)
        await stopped(serve)


@pytest.mark.parametrize(
    ("signum", "cause"), [(signal.SIGKILL, "killed by signal 9 while starting"), (signal.SIGSTOP, "made no progress")]
)
async def test_a_child_that_is_killed_or_stopped_while_it_loads_is_tried_again(
    config: dict[str, object], signum: signal.Signals, cause: str
) -> None:
    policy = {**config["supervision"], "stall_s": 3.0}  # type: ignore[dict-item] # made above
    async with trillama_serve(
        {**config, "supervision": policy}, ready=False, env={"FAULTY": "code=never ready"}
    ) as serve:
        await serve.until("code: starting")
        serve.child("code.sock").send_signal(signum)
        await serve.until("code: backoff")
        assert cause in serve.output[-1]
        await serve.until("code: starting")
        await stopped(serve)


async def test_it_gives_up_and_says_why_when_none_ever_passes_its_check(config: dict[str, object]) -> None:
    policy = {**config["supervision"], "max_failures": 1}  # type: ignore[dict-item] # made above
    async with trillama_serve({**config, "supervision": policy}, ready=False, env={"FAULTY": "*=exits"}) as serve:
        assert await serve.ended() == 75
        assert "gave up: " in serve.output[-2]
        assert "out of something" in serve.output[-2]
        await empty(serve.runtime)


ILLEGAL = "killed by signal 4 (SIGILL: it uses an instruction that this processor does not have; run `trillama engine"


async def test_an_engine_that_this_processor_cannot_run_is_not_started_again_and_again(
    config: dict[str, object],
) -> None:
    async with trillama_serve(config, ready=False, env={"FAULTY": "code=dies of SIGILL in a batch"}) as serve:
        await serve.until("code: failed")
        assert ILLEGAL in serve.output[-1]
        await until(serve, "retrieval", 200)
        await stopped(serve)
    assert sum("code: starting" in line for line in serve.output) == 1


async def test_where_this_processor_can_run_none_systemd_does_not_start_it_again(config: dict[str, object]) -> None:
    async with trillama_serve(config, ready=False, env={"FAULTY": "*=dies of SIGILL"}) as serve:
        assert await serve.ended() == 69
        assert ILLEGAL in serve.output[-2]
        await empty(serve.runtime)


async def test_a_cache_whose_place_is_gone_costs_a_restarted_proxy_its_cache_alone(
    config: dict[str, object], tmp_path: Path
) -> None:
    cache = tmp_path / "cache.db"
    given = {**config, "proxy": {"cache_bytes": 10**6, "cache_file": str(cache)}}
    async with trillama_serve(given) as serve:
        for path in tmp_path.glob("cache.db*"):
            path.unlink()
        cache.mkdir()
        await serve.kill("proxy.toml")
        await serve.until("refused the settings that it had served with")
        await until(serve, "code", 200)
        await stopped(serve)


async def test_a_file_cut_off_is_refused_before_anything_starts(config: dict[str, object], tmp_path: Path) -> None:
    files: dict[str, str] = config["models"]["files"]  # type: ignore[index] # made above
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(Path(files["code"]).read_bytes()[:-1000])
    async with trillama_serve({**config, "models": {"files": {**files, "code": str(broken)}}}, ready=False) as serve:
        assert await serve.ended() == 66
        assert "broken.gguf: cut off" in "".join(serve.output)


async def test_a_child_that_ignores_sigterm_does_not_hold_up_the_end(config: dict[str, object]) -> None:
    async with trillama_serve(config, env={"FAULTY": "code=ignores SIGTERM"}) as serve:
        await stopped(serve)


async def test_a_child_that_floods_its_log_serves_and_fills_no_disk(config: dict[str, object]) -> None:
    async with trillama_serve(config, env={"FAULTY": "code=floods its log"}) as serve:
        for _ in range(20):
            assert await status(serve, "code") == 200
        await stopped(serve)
        files = [path.stat().st_size for path in serve.logs.glob("code.log*")]
        assert len(files) > 1
        assert sum(files) <= (EARLIER_FILES + 1) * FILE_BYTES


async def test_fifty_restarts_leak_nothing(config: dict[str, object]) -> None:
    async with trillama_serve(config) as serve:
        launcher = psutil.Process(serve.process.pid)

        async def restart() -> None:
            await serve.kill("code.sock")
            await serve.until("code: ready")

        for _ in range(5):
            await restart()

        def held() -> tuple[int, int, int]:
            return launcher.num_fds(), len(serve.children()), len(list(serve.runtime.rglob("*")))

        before = held()
        memory = launcher.memory_info().rss
        for _ in range(50):
            await restart()
        after = held()
        assert after[1:] == before[1:]
        assert after[0] < before[0] + 10  # a probe opens a connection now and then
        assert launcher.memory_info().rss - memory < 4 * 2**20
        await until(serve, "code", 200)
        await stopped(serve)


@pytest.mark.parametrize("after_s", [0.1, 0.4, 0.7, 1.0])
async def test_the_launcher_killed_at_any_step_leaves_nothing(config: dict[str, object], after_s: float) -> None:
    async with trillama_serve(config, ready=False) as serve:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(after_s):
                await serve.process.wait()
        children = serve.children()
        os.kill(serve.process.pid, signal.SIGKILL)
        await serve.ended()
        await gone(children)
        if serve.runtime.is_dir():
            await empty(serve.runtime)
