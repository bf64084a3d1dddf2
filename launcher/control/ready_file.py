"""`serve --ready-file`: tells the program that started us where we listen, once we serve."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import orjson
from pydantic import BaseModel

from launcher.host.disk import atomic_file
from proxy.contract.admin import SPACES_HEADER

_TIMEOUT = aiohttp.ClientTimeout(total=5)


class Announcement(BaseModel):
    """The file's content. `spaces` names the vector spaces that are served: vectors of equal ones can be compared."""

    url: str
    pid: int
    port: int = 0
    spaces: str = ""


@asynccontextmanager
async def ready_file(path: Path | None) -> AsyncIterator[Callable[[str], Awaitable[None]]]:
    """A function that writes the file for the server at a URL, whole or not at all; the file is gone after the block.

    A file of an earlier run is removed first. Without a path nothing is written.
    """
    if path is None:
        yield _ignored
        return
    path.unlink(missing_ok=True)

    async def write(url: str) -> None:
        port = int(url.rsplit(":", 1)[1])
        content = Announcement(url=url, port=port, pid=os.getpid(), spaces=await served_spaces(url))
        await asyncio.to_thread(_replace, path, content.model_dump_json().encode())

    try:
        yield write
    finally:
        path.unlink(missing_ok=True)


async def served_spaces(url: str) -> str:
    """What `/ready` says of the vector spaces that are served; empty if it does not answer."""
    with suppress(aiohttp.ClientError, OSError, TimeoutError):
        async with aiohttp.ClientSession(timeout=_TIMEOUT) as session, session.get(f"{url}/ready") as response:
            return str(response.headers.get(SPACES_HEADER, ""))
    return ""


def read_announcement(path: Path) -> Announcement | None:
    """The content of a server's ready file; None while it is not ready."""
    try:
        return Announcement.model_validate(orjson.loads(path.read_bytes()))
    except FileNotFoundError:
        return None


async def _ignored(_: str) -> None:
    pass


def _replace(path: Path, content: bytes) -> None:
    with atomic_file(path) as unfinished:
        unfinished.write_bytes(content)
