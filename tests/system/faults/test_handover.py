"""A reload hands over from one proxy to the next: no request is refused, and a backend has one batch in flight."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import aiohttp

from tests.support.servers.serve import Serve, empty, trillama_serve
from tests.system.faults.test_faults import TASKS, config, faulty_engine, stopped
from tests.system.faults.test_operate import write

__all__ = ["config", "faulty_engine"]  # fixtures

KEYS = [f"a-key-of-some-length-{number}" for number in range(6)]
QUIET = {"log_level": "warning"}  # nobody reads a line for each request


def keys(config: Mapping[str, object], count: int) -> dict[str, object]:
    return {**config, "proxy": {**QUIET, "api_keys": KEYS[:count]}}


async def ask(serve: Serve, session: aiohttp.ClientSession, key: str, texts: int = 1) -> int:
    """The status of one request."""
    body = {"input": [f"text {number} of {texts}" for number in range(texts)], "task": TASKS["code"]}
    headers = {"Authorization": f"Bearer {key}"}
    async with session.post(f"{serve.url}/v1/embeddings", json=body, headers=headers) as answer:
        await answer.read()
        return answer.status


async def reload(serve: Serve, config: Mapping[str, object]) -> None:
    write(serve, config)
    serve.process.send_signal(signal.SIGHUP)
    await serve.until("has been read again")


async def test_no_request_is_refused_while_keys_are_added_and_batches_never_overlap(config: dict[str, object]) -> None:
    policy = {**config["supervision"], "canary_interval_s": 1000.0}  # type: ignore[dict-item] # a table
    config = {**config, "supervision": policy}
    seen: Counter[int] = Counter()
    env = {"FAULTY": "code=takes one batch at a time"}
    async with (
        trillama_serve(keys(config, 1), env=env) as serve,
        aiohttp.ClientSession() as kept,
        asyncio.TaskGroup() as tasks,
    ):
        done = asyncio.Event()

        async def keep_asking(*, reconnect: bool) -> None:
            while not done.is_set():
                if reconnect:
                    async with aiohttp.ClientSession() as session:
                        seen[await ask(serve, session, KEYS[0])] += 1
                else:
                    seen[await ask(serve, kept, KEYS[0], texts=20)] += 1

        for reconnect in (True, True, False):
            tasks.create_task(keep_asking(reconnect=reconnect))
        for count in range(2, 5):
            await reload(serve, keys(config, count))
            seen[await ask(serve, kept, KEYS[count - 1])] += 1
        async with asyncio.timeout(30):
            while seen.total() < 200:
                await asyncio.sleep(0.05)
        done.set()
    assert set(seen) == {200}, seen


async def test_what_waits_at_the_old_proxy_is_answered_however_long_it_takes(config: dict[str, object]) -> None:
    async with trillama_serve(keys(config, 1), env={"FAULTY": "code=is slow"}) as serve:  # grace_s is 0.5
        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(ask(serve, session, KEYS[0], texts=8 + number)) for number in range(3)]
            await asyncio.wait(asked, timeout=0.3)
            await reload(serve, keys(config, 2))
            assert await ask(serve, session, KEYS[1]) == 200
        assert [one.result() for one in asked] == [200] * 3
        await stopped(serve)


async def test_a_new_proxy_that_does_not_come_up_leaves_the_old_one(config: dict[str, object]) -> None:
    async with trillama_serve(config) as serve, aiohttp.ClientSession() as session:
        before = serve.child("proxy.toml").pid
        (folder,) = serve.runtime.iterdir()
        (folder / "2.proxy.toml").mkdir()  # as a full disk: it cannot be written
        write(serve, keys(config, 1))
        serve.process.send_signal(signal.SIGHUP)
        await serve.until("the old configuration stays")
        assert f"cannot be started: {folder}" in serve.output[-1]
        assert serve.child("proxy.toml").pid == before
        assert await ask(serve, session, "") == 200
        await stopped(serve)


async def test_one_that_hangs_holds_up_neither_its_restart_nor_that_of_another(config: dict[str, object]) -> None:
    policy = {**config["supervision"], "max_misses": 10_000, "canary_interval_s": 1000.0}  # type: ignore[dict-item]
    async with (
        trillama_serve({**config, "supervision": policy}, env={"FAULTY": "code=hangs in a batch"}) as serve,
        aiohttp.ClientSession() as session,
        asyncio.TaskGroup() as tasks,
    ):
        asked = tasks.create_task(ask(serve, session, "", texts=8))
        await asyncio.wait((asked,), timeout=0.3)
        serve.child("code.sock").send_signal(signal.SIGSTOP)
        restarting = tasks.create_task(serve.command("restart", "code"))
        code, output = await serve.command("restart", "retrieval")
        assert code == 0, output
        code, output = await restarting  # `command` waits for a minute; a batch may take ten
        assert code == 0, output
        assert await asked == 200


async def test_a_proxy_that_never_comes_up_is_given_up(config: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nif 'proxy' in sys.orig_argv: sys.exit('no, never')\n")
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    async with trillama_serve(config, ready=False, env=env) as serve:
        assert await serve.ended() == 75
        assert "the proxy exited with 1" in serve.output[-2]
        assert serve.output.count("SystemExit: no, never\n") == 3
        await empty(serve.runtime)
