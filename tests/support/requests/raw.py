"""Raw HTTP: bytes that no client library would send, and the responses."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import orjson

PATIENCE_S = 20.0


@dataclass(frozen=True, slots=True)
class Said:
    """The responses on one connection, to its end."""

    data: bytes

    @property
    def statuses(self) -> list[int]:
        return [int(line.split()[1]) for line in self.data.split(b"\r\n") if line.startswith(b"HTTP/1.")]

    @property
    def closes(self) -> bool:
        """Whether a response had `Connection: close`."""
        return b"\r\nConnection: close\r\n" in self.data

    @property
    def code(self) -> object:
        """The `code` of the last response, an error."""
        return self.json["code"]

    @property
    def json(self) -> dict[str, object]:
        body = orjson.loads(self.data.rpartition(b"\r\n\r\n")[2])
        assert isinstance(body, dict)
        return body


def head(*lines: str, method: str = "POST", path: str = "/v1/embeddings", host: str | None = "127.0.0.1") -> bytes:
    """A request's head of those header lines."""
    hosts = [] if host is None else [f"Host: {host}"]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *hosts, *lines, "", ""]).encode("latin-1")


def post(body: bytes, *lines: str) -> bytes:
    """A whole request that is the last on its connection."""
    return head(*lines, "Connection: close", f"Content-Length: {len(body)}") + body


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection on which nothing was sent yet."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.close()


async def said(url: str, *parts: bytes) -> Said:
    """The responses until the server closes; each part is sent after a response to the one before."""
    async with connected(url) as (reader, writer), asyncio.timeout(PATIENCE_S):
        answer = b""
        for part in parts:
            writer.write(part)
            answer += await reader.read(2**16)
        return Said(answer + await reader.read())


def dripping(head: bytes) -> Iterator[bytes]:
    """That head, and then single letters forever."""
    yield head
    while True:
        yield b"x"
