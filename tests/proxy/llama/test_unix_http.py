"""The short way to an engine of this machine: what it reuses, what it gives up, what it leaves to a whole client."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path

import pytest

from proxy.contract.settings import BackendSettings
from proxy.errors import BackendError, BackendLost, BackendUnavailable
from proxy.llama.client import LlamaClient, connect
from proxy.llama.unix_http import CONNECTIONS, NeedsFullClient, NotListening, Reply, UnixHttpClient

PLAIN = b"HTTP/1.1 200 OK\r\nX-A: b\r\nContent-Length: 5\r\n\r\nhello"
LAST = b"HTTP/1.1 200 OK\r\nConnection: close\r\ncontent-length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
HALF = PLAIN[:-2]


@asynccontextmanager
async def scripted(*connections: Sequence[bytes]) -> AsyncIterator[Path]:
    """A server whose n-th connection gives those answers, in small pieces, and is closed then."""
    left = list(connections)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(asyncio.IncompleteReadError, ConnectionError):
            for answer in left.pop(0):
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
                for start in range(0, len(answer), 7):
                    writer.write(answer[start : start + 7])
                    await writer.drain()

    with tempfile.TemporaryDirectory(prefix="trillama-") as folder:
        socket = Path(folder, "s")
        async with await asyncio.start_unix_server(serve, socket):
            yield socket
    assert left == []


def pipe(socket: Path, keepalive_s: float = 3.0) -> UnixHttpClient:
    return UnixHttpClient(str(socket), headers=b"A: b\r\n", keepalive_s=keepalive_s)


async def test_one_connection_serves_many_calls_until_the_server_says_it_is_the_last() -> None:
    async with scripted([PLAIN, PLAIN, LAST], [PLAIN]) as socket:
        one = pipe(socket)
        assert [await one.post("/", b"12") for _ in range(4)] == [Reply(200, b"hello")] * 4
        one.close()


async def test_a_connection_that_was_idle_for_long_is_not_used_again() -> None:
    async with scripted([PLAIN, PLAIN], [PLAIN, PLAIN]) as socket:
        one = pipe(socket, keepalive_s=0.0)
        await one.post("/", b"")
        await one.post("/", b"")
        one.close()


async def test_what_is_cut_off_or_not_there_says_so() -> None:
    async with scripted([HALF], []) as socket:
        for _ in range(2):
            with pytest.raises(ConnectionResetError):
                await pipe(socket).post("/", b"")
    with pytest.raises(NotListening):
        await pipe(socket).post("/", b"")


async def test_a_call_that_is_given_up_leaves_no_answer_to_the_next() -> None:
    async with scripted([HALF, PLAIN], [PLAIN]) as socket:
        one = pipe(socket)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await one.post("/", b"")
        assert await one.post("/", b"") == Reply(200, b"hello")
        one.close()


async def test_calls_that_overlap_have_connections_of_their_own_few_of_them_and_none_is_left_open() -> None:
    opened, most, gate = set[asyncio.StreamWriter](), 0, asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal most
        opened.add(writer)
        most = max(most, len(opened))
        with closing(writer), suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n"):
                await gate.wait()
                writer.write(PLAIN)
        opened.discard(writer)

    with tempfile.TemporaryDirectory(prefix="trillama-") as folder:
        socket = Path(folder, "s")
        async with await asyncio.start_unix_server(serve, socket):
            one = pipe(socket)
            calls = [asyncio.ensure_future(one.post("/", b"")) for _ in range(3 * CONNECTIONS)]
            async with asyncio.timeout(5):
                while len(opened) < CONNECTIONS:
                    await asyncio.sleep(0.001)
            gate.set()
            assert await asyncio.gather(*calls) == [Reply(200, b"hello")] * len(calls)
            await one.post("/", b"")
            one.close()
            async with asyncio.timeout(5):
                while opened:
                    await asyncio.sleep(0.001)
    assert most == CONNECTIONS


@asynccontextmanager
async def backend(*connections: Sequence[bytes]) -> AsyncIterator[LlamaClient]:
    async with (
        scripted(*connections) as socket,
        connect(LlamaClient, "x", BackendSettings(url=f"unix://{socket}")) as one,
    ):
        yield one


async def test_an_answer_without_its_length_is_left_to_a_whole_client() -> None:
    async with scripted([CHUNKED]) as socket:
        with pytest.raises(NeedsFullClient):
            await pipe(socket).post("/", b"")
    async with backend([CHUNKED], [CHUNKED]) as one:
        assert await one.send([b"[1]"]) == b"hello"


async def test_a_stale_connection_is_tried_once_more() -> None:
    async with backend([PLAIN], [PLAIN]) as one:
        assert [await one.send([b"[1]"]) for _ in range(2)] == [b"hello"] * 2


async def test_a_call_that_was_lost_is_told_apart_from_one_that_was_not_taken() -> None:
    async with backend([], []) as one:
        with pytest.raises(BackendLost):
            await one.send([b"[1]"])
    async with connect(LlamaClient, "x", BackendSettings(url="unix:///nowhere")) as one:
        with pytest.raises(BackendUnavailable) as down:
            await one.send([b"[1]"])
    assert not isinstance(down.value, BackendLost)


async def test_an_error_of_the_engine_is_an_error() -> None:
    async with backend([PLAIN.replace(b"200 OK", b"500 No")]) as one:
        with pytest.raises(BackendError, match="answered 500: hello"):
            await one.send([b"[1]"])
