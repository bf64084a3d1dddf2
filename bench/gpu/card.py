"""The card as nvidia-smi sees it: its memory, how busy it is, and memory taken away from others."""

import asyncio
import statistics
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

SAMPLE_MS = 200


def cards() -> list[str]:
    """The name of each; none without a driver."""
    try:
        return _asked("name")
    except (OSError, subprocess.CalledProcessError):
        return []


def used_bytes() -> int:
    """The memory of the first card that is taken, by whomever."""
    return int(_asked("memory.used")[0]) * 2**20


def total_bytes() -> int:
    """All of the first card's memory."""
    return int(_asked("memory.total")[0]) * 2**20


def unused_bytes() -> int:
    """What is not taken; the driver keeps a part that is neither."""
    return int(_asked("memory.free")[0]) * 2**20


@asynccontextmanager
async def busy(*, watched: bool) -> AsyncIterator[list[float]]:
    """Per cent of the time in which the card computed, sampled during the block; the list is filled at its end.

    It stays empty if the card is not `watched`.
    """
    found: list[float] = []
    if not watched:
        yield found
        return
    process = await asyncio.create_subprocess_exec(
        *("nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--id=0"),
        *("--loop-ms", str(SAMPLE_MS)),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield found
    finally:
        process.terminate()
        output, _ = await process.communicate()
        samples = [float(line) for line in output.decode().split() if line.replace(".", "").isdigit()]
        found.extend([statistics.mean(samples)] if samples else [])


@asynccontextmanager
async def held(bytes_: int) -> AsyncIterator[None]:
    """Take that much of the card's memory for the block."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.gpu.torch_side", "hold", str(bytes_)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin
    assert process.stdout
    try:
        async with asyncio.timeout(60):
            line = await process.stdout.readline()
        assert line == b"held\n", f"{bytes_} bytes of the card cannot be had"
        yield
    finally:
        process.stdin.close()
        await process.wait()


def _asked(what: str) -> list[str]:
    argv = ("nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader,nounits")
    output = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=30).stdout
    return [line.strip() for line in output.splitlines() if line.strip()]
