"""Embeds rows as a job, and compares the job's tokens/s with what the server gives clients that keep no answer.

The server is the tests' stub (2048 dimensions, a millisecond a text, one call at a time), or any that runs: `--url`.
With `--kills` the same rows are embedded again, and the job is killed at random moments meanwhile.
"""

import argparse
import asyncio
import itertools
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path

import aiohttp
import numpy as np
import orjson
import psutil
from pyarrow import parquet

from launcher.corpus.job import job_state
from launcher.corpus.pending import CALL_TEXTS
from launcher.corpus.plan import PLAN
from tests.support.servers.stack import unused_port

SECONDS_PER_TEXT = 0.001
SATURATED_S = 15.0
CLIENTS = 16  # as many as a job has calls in flight
_WORDS = ("the river", "a door", "of stone", "was seen", "by night", "and nobody", "said", "where it", "went", "again")


async def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m bench.bulk")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=1, help="measure the server and the job so many times, in turn")
    parser.add_argument("--words", type=int, default=8, help="of a row, besides its number")
    parser.add_argument("--url", help="a server that runs, in place of the stub")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bulk-", dir="/var/tmp") as folder:  # /tmp may be memory
        corpus, whole, killed = Path(folder, "c.txt"), Path(folder, "whole"), Path(folder, "killed")
        write_corpus(corpus, options.rows, options.words)
        async with stub_server() if options.url is None else nullcontext(options.url) as url:
            await shares(corpus, whole, url, options)
            if options.kills:
                await killed_again_and_again(corpus, killed, url, options)
                await asyncio.to_thread(check_equal, whole, killed, options.rows)


def write_corpus(path: Path, rows: int, words: int) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(text_of(row, words) + "\n" for row in range(rows))


def text_of(row: int, words: int) -> str:
    """A text like no other row's, and about as long."""
    shuffled = random.Random(row)
    return " ".join((f"{row:09}", *(shuffled.choice(_WORDS) for _ in range(words))))


async def shares(corpus: Path, out: Path, url: str, options: argparse.Namespace) -> None:
    """The job's tokens/s by the mean of the server's before and after it, round by round."""
    found = []
    before = await saturated_rate(url, options.words)
    for _ in range(options.rounds):
        await asyncio.to_thread(shutil.rmtree, out, ignore_errors=True)
        job, most = await one_go(corpus, out, url)
        after = await saturated_rate(url, options.words)
        found.append(job / ((before + after) / 2))
        print(
            f"the server: {before:.0f} and {after:.0f} tokens/s, the job between: {job:.0f}, {found[-1]:.3f} of it; "
            f"at most {most / 2**20:.0f} MiB; load {os.getloadavg()[0]:.1f}",
            flush=True,
        )
        before = after
    print(f"median of {len(found)}: {statistics.median(found):.3f}")


@asynccontextmanager
async def stub_server() -> AsyncIterator[str]:
    """The stub in a process of its own, for the block."""
    port = unused_port()
    argv = (sys.executable, "-m", "tests.support.servers.embeddings_stub", str(port), str(SECONDS_PER_TEXT))
    process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
    assert process.stdout
    try:
        assert await process.stdout.readline()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        await process.wait()


async def saturated_rate(url: str, words: int) -> float:
    """Tokens per second of so many clients, until the last answer is there."""
    headers = {"Accept": "application/octet-stream", "X-Trillama-Lane": "bulk"}
    tokens, began, rows = 0, time.monotonic(), itertools.count(random.randrange(10**6, 9 * 10**8))

    async def client(session: aiohttp.ClientSession) -> None:
        nonlocal tokens
        while time.monotonic() < began + SATURATED_S:
            body = {"input": [text_of(row, words) for row in itertools.islice(rows, CALL_TEXTS)]}
            async with session.post(f"{url}/v1/embeddings", data=orjson.dumps(body), headers=headers) as answer:
                await answer.read()
                answer.raise_for_status()
            tokens += int(answer.headers["X-Usage-Tokens"])

    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as tasks:
        for _ in range(CLIENTS):
            tasks.create_task(client(session))
    return tokens / (time.monotonic() - began)


async def started_job(corpus: Path, out: Path, url: str) -> asyncio.subprocess.Process:
    argv = (sys.executable, "-m", "launcher", "corpus", "run", str(corpus), "--out", str(out), "--url", url)
    return await asyncio.create_subprocess_exec(*argv, "--json", stdout=asyncio.subprocess.PIPE)


async def one_go(corpus: Path, out: Path, url: str) -> tuple[float, int]:
    """Tokens per second of the whole run, by its own clock, and its most memory in bytes."""
    process = await started_job(corpus, out, url)
    assert process.stdout
    most, last = 0, b"{}"
    while line := await process.stdout.readline():
        last, most = line, max(most, psutil.Process(process.pid).memory_info().rss)
    assert await process.wait() == 0
    facts = orjson.loads(last)
    return facts["tokens"] / facts["seconds"], most


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
