"""Embeds the same rows twice, once in one go and once killed again and again, and compares both with the server's rate.

The server is the tests' stub: 2048 dimensions, a millisecond a text, one call at a time.
"""

import argparse
import asyncio
import random
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import numpy as np
import orjson
import psutil
from pyarrow import parquet

from launcher.corpus.job import job_state
from launcher.corpus.pending import CALL_TEXTS
from launcher.corpus.plan import PLAN
from tests.support.stack import unused_port

SECONDS_PER_TEXT = 0.001
SATURATED_S = 15.0
CLIENTS = 16


async def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m bench.bulk")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--kills", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bulk-", dir="/var/tmp") as folder:  # /tmp may be memory
        corpus, whole, killed = Path(folder, "c.txt"), Path(folder, "whole"), Path(folder, "killed")
        write_corpus(corpus, options.rows)
        async with stub_server() as url:
            saturated = await saturated_rate(url)
            print(f"the server, saturated: {saturated:.0f} texts/s")
            rate, most = await one_go(corpus, whole, url)
            print(f"in one go: {rate:.0f} texts/s, {rate / saturated:.3f} of it; at most {most / 2**20:.0f} MiB")
            saturated = await saturated_rate(url)
            print(f"the server, saturated, again: {saturated:.0f} texts/s")
            await killed_again_and_again(corpus, killed, url, options)
            await asyncio.to_thread(check_equal, whole, killed, options.rows)


def write_corpus(path: Path, rows: int) -> None:
    """A text per row, each another one."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(f"row {row} of a corpus that is as long as it is dull\n" for row in range(rows))


@asynccontextmanager
async def stub_server() -> AsyncIterator[str]:
    """The stub in a process of its own, for the block."""
    port = unused_port()
    argv = (sys.executable, "-m", "tests.support.embeddings_stub", str(port), str(SECONDS_PER_TEXT))
    process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
    assert process.stdout
    try:
        assert await process.stdout.readline()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        await process.wait()


async def saturated_rate(url: str) -> float:
    """Texts per second of as many clients as a job has calls in flight, whose answers nobody looks at."""
    headers = {"Accept": "application/octet-stream"}
    body = orjson.dumps({"input": [f"text {number}" for number in range(CALL_TEXTS)]})
    done, until = 0, time.monotonic() + SATURATED_S

    async def client(session: aiohttp.ClientSession) -> None:
        nonlocal done
        while time.monotonic() < until:
            async with session.post(f"{url}/v1/embeddings", data=body, headers=headers) as answer:
                await answer.read()
            done += CALL_TEXTS

    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as tasks:
        for _ in range(CLIENTS):
            tasks.create_task(client(session))
    return done / SATURATED_S


async def started_job(corpus: Path, out: Path, url: str) -> asyncio.subprocess.Process:
    argv = (sys.executable, "-m", "launcher", "corpus", "run", str(corpus), "--out", str(out), "--url", url)
    return await asyncio.create_subprocess_exec(*argv, "--json", stdout=asyncio.subprocess.PIPE)


async def one_go(corpus: Path, out: Path, url: str) -> tuple[float, int]:
    """Texts per second of the whole run, by its own clock, and its most memory in bytes."""
    process = await started_job(corpus, out, url)
    assert process.stdout
    most, last = 0, b"{}"
    while line := await process.stdout.readline():
        last, most = line, max(most, psutil.Process(process.pid).memory_info().rss)
    assert await process.wait() == 0
    facts = orjson.loads(last)
    return facts["rows"] / facts["seconds"], most


async def killed_again_and_again(corpus: Path, out: Path, url: str, options: argparse.Namespace) -> None:
    """Kill it at random moments, and let the last run complete it."""
    seeded, kills = random.Random(1), sorted(random.Random(2).sample(range(options.rows), options.kills))
    for rows in kills:
        process = await started_job(corpus, out, url)
        while process.returncode is None and rows_done(out) + 2048 < rows:  # noqa: ASYNC110 # another process
            await asyncio.sleep(0.2)
        await asyncio.sleep(seeded.random() * 3)
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        await process.communicate()
        print(f"killed with {rows_done(out)} rows done")
    process = await started_job(corpus, out, url)
    await process.communicate()
    assert process.returncode == 0


def rows_done(out: Path) -> int:
    return job_state(out).rows_done if (out / PLAN).exists() else 0


def check_equal(whole: Path, killed: Path, rows: int) -> None:
    """Every row once, and the same bytes in both."""
    seen = np.zeros(rows, dtype=np.int64)
    for one, other in zip(sorted((whole / "vectors").iterdir()), sorted((killed / "vectors").iterdir()), strict=True):
        first, second = parquet.read_table(one), parquet.read_table(other)
        assert first.equals(second)
        np.add.at(seen, second.column("id").to_numpy(), 1)
    assert (seen == 1).all()
    print(f"{rows} rows, each once; all vectors are equal to those of the run in one go")


if __name__ == "__main__":
    asyncio.run(main())
