"""Runs the process that renders a PDF, and ends it: at its deadline, when it says too much, or when its caller left."""

import asyncio
import struct
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

from proxy.contract.images import PDF_PAGES
from proxy.faults import BadImage
from proxy.images.sizes import MAX_PIXELS

T = TypeVar("T")

DEADLINE_S = 30.0  # for all pages of a PDF
_MAX_PAGE_PIXELS = 2 * MAX_PIXELS  # the sides of a long page are rounded up
_CHILD = Path(__file__).with_name("child.py")
_REFUSED = 3  # the child's exit code when stderr says why
_HEAD = struct.Struct(">II")
_MAX_REASON = 200  # bytes
NOT_INSTALLED = "is a PDF, and this server reads none: run `pip install 'trillama[pdf]'` where it is installed"


async def rendered_pages(file: bytes, *, deadline_s: float = DEADLINE_S) -> list[bytes]:
    """The pages of a PDF, each a PPM of about as many pixels as the model sees at most. Raises BadImage."""
    if find_spec("pypdfium2") is None:
        raise BadImage(NOT_INSTALLED)
    try:
        async with asyncio.timeout(deadline_s):
            return await _rendered(file)
    except TimeoutError:
        raise BadImage(f"is a PDF that could not be rendered within {deadline_s:g} s") from None


async def _rendered(file: bytes) -> list[bytes]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", str(_CHILD), str(PDF_PAGES), str(MAX_PIXELS)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={},
    )
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_send(_piped(process.stdin), file))
            reason = tasks.create_task(_piped(process.stderr).read(_MAX_REASON))
            pages = tasks.create_task(_pages(_piped(process.stdout)))
        code = await process.wait()
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from errors
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    if code == _REFUSED:
        raise BadImage(reason.result().decode(errors="replace"))
    if code:
        raise BadImage("is a PDF that could not be rendered: it is broken, or takes too much memory or time")
    return pages.result()


def _piped(pipe: T | None) -> T:
    if pipe is None:
        raise RuntimeError("a pipe of the process that renders is missing")
    return pipe


async def _send(stdin: asyncio.StreamWriter, file: bytes) -> None:
    with suppress(ConnectionError):  # it ended: its exit code says why
        stdin.write(file)
        await stdin.drain()
        stdin.close()


async def _pages(stdout: asyncio.StreamReader) -> list[bytes]:
    """What the child writes, bounded as if it were not ours: the file may have taken it over."""
    pages = list[bytes]()
    while head := await stdout.read(_HEAD.size):
        try:
            width, height = _HEAD.unpack(head + await stdout.readexactly(_HEAD.size - len(head)))
            if len(pages) >= PDF_PAGES or not 0 < width * height <= _MAX_PAGE_PIXELS:
                raise BadImage("is a PDF that could not be rendered: its pages are too large")
            pages.append(b"P6 %d %d 255\n" % (width, height) + await stdout.readexactly(3 * width * height))
        except asyncio.IncompleteReadError:  # it died: its exit code says so
            break
    return pages
