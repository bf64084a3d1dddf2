"""A socket from systemd: which are accepted, which rejected, and that a restart of trillama loses no connection."""

import asyncio
import os
import shutil
import signal
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path

import aiohttp
import pytest

from launcher.errors import StartError
from launcher.fleet.listener import socket_count
from tests.support.servers.serve import Serve, quick_engine, trillama_serve
from tests.support.servers.stack import small_family, unused_port

# What systemd does between fork and exec: number 3, and the pid of the program to come.
HAND_OVER = (
    "import os, sys; fd = int(sys.argv[1]); os.dup2(fd, 3); os.set_inheritable(3, True); "
    "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=sys.argv[2], LISTEN_FDNAMES='any'); "
    "os.execv(sys.argv[3], sys.argv[3:])"
)
PASSED_ON = ("LOGS_DIRECTORY", "TRILLAMA_CACHE", "PYTHONPATH")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    family, models = small_family(tmp_path_factory.mktemp("activated"))
    return {
        "family": str(family),
        "max_input_tokens": 512,
        "models": {"files": {name: str(path) for name, path in models.items()}},
        "engine": quick_engine(),
    }


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        yield listening


def serving_on(
    sock: socket.socket, config: Mapping[str, object], *, count: int = 1, ready: bool = True
) -> AbstractAsyncContextManager[Serve]:
    """`trillama serve` with this socket handed over and LISTEN_FDS set to `count`."""
    through = (sys.executable, "-c", HAND_OVER, str(sock.fileno()), str(count))
    return trillama_serve(config, ready=ready, through=through, pass_fds=(sock.fileno(),))


async def ask(port: int) -> tuple[int, str | None]:
    """The status of one request over a connection of its own, and its Retry-After."""
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session,
        session.post(f"http://127.0.0.1:{port}/v1/embeddings", json={"input": ["a"]}) as response,
    ):
        await response.read()
        return response.status, response.headers.get("Retry-After")


async def test_the_first_connection_starts_it_and_is_answered(config: dict[str, object]) -> None:
    activate = shutil.which("systemd-socket-activate")
    if activate is None:
        pytest.skip("no systemd-socket-activate on this machine")
    port = unused_port()
    passed_on = tuple(f"--setenv={name}" for name in PASSED_ON)
    through = (activate, f"--listen=127.0.0.1:{port}", *passed_on)
    async with trillama_serve(config, ready=False, through=through) as serve:
        await serve.until("Listening on")
        first = asyncio.create_task(ask(port))
        await serve.until(f"is ready at http://127.0.0.1:{port} ")
        status, retry_after = await first
        assert status == 200 or (status == 503 and retry_after)
        assert (await ask(port))[0] == 200
        environ = [one.environ() for one in serve.children()]
        assert environ
        assert not any(name.startswith("LISTEN_") for one in environ for name in one)


async def test_no_connection_is_lost_over_a_restart(config: dict[str, object], listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    answers: list[tuple[int, str | None]] = []
    over = asyncio.Event()

    async def keep_asking() -> None:
        while not over.is_set():
            answers.append(await ask(port))  # raises if it is refused or hung up on

    async with (
        serving_on(listener, config) as first,
        AsyncExitStack() as afterwards,
        asyncio.TaskGroup() as tasks,
    ):
        for _ in range(8):
            tasks.create_task(keep_asking())
        first.process.send_signal(signal.SIGTERM)
        assert await first.ended() == 0
        waiting = [asyncio.create_task(ask(port)) for _ in range(20)]  # while nothing runs at all
        await afterwards.enter_async_context(serving_on(listener, config))
        answers += await asyncio.gather(*waiting)
        assert (await ask(port))[0] == 200
        over.set()
    assert {status for status, _ in answers} <= {200, 503}
    assert all(retry_after for status, retry_after in answers if status == 503)


async def test_a_socket_that_cannot_be_served_is_reported(config: dict[str, object], tmp_path: Path) -> None:
    with (
        socket.socket() as deaf,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        socket.socket(socket.AF_UNIX) as unix,
        socket.create_server(("127.0.0.1", 0)) as good,
    ):
        unix.bind(os.fspath(tmp_path / "s"))
        unix.listen()
        cases = ((deaf, 1, "does not listen"), (udp, 1, "not TCP"), (unix, 1, "AF_UNIX"), (good, 2, "2 sockets"))

        async def refused(sock: socket.socket, count: int, message: str) -> None:
            async with serving_on(sock, config, count=count, ready=False) as serve:
                assert await serve.ended() == StartError.exit_code
                assert message in "".join(serve.output)

        await asyncio.gather(*(refused(*case) for case in cases))


@pytest.mark.parametrize(
    ("given", "count"),
    [
        ({}, 0),
        ({"LISTEN_FDS": "1"}, 0),
        ({"LISTEN_FDS": "1", "LISTEN_PID": "8"}, 0),
        ({"LISTEN_FDS": "1", "LISTEN_PID": "7"}, 1),
        ({"LISTEN_FDS": "2", "LISTEN_PID": "7", "LISTEN_FDNAMES": "a:b"}, 2),
        ({"LISTEN_FDS": "0", "LISTEN_PID": "7"}, 0),
    ],
)
def test_sockets_are_for_the_process_that_is_named(given: dict[str, str], count: int) -> None:
    assert socket_count(given, 7) == count


@pytest.mark.parametrize("count", ["", "-1", "one", "²"])
def test_a_broken_count_is_refused(count: str) -> None:
    with pytest.raises(StartError, match="LISTEN_FDS"):
        socket_count({"LISTEN_PID": "7", "LISTEN_FDS": count}, 7)
