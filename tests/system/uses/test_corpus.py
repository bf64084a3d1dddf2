"""A corpus job that is killed again and again: each row is there once, and right."""

import asyncio
import random
import signal
from pathlib import Path

import pytest

from launcher.corpus.job import job_state
from launcher.corpus.output.stored import OutputFormat
from launcher.corpus.plan import PLAN
from tests.support.requests.corpus import vectors_by_id
from tests.support.servers.embeddings_stub import EmbeddingsStub, embeddings_stub, vector_of
from tests.support.servers.trillama import clean, command

ROWS = 2000
TIMEOUT_S = 60


async def start(stub: EmbeddingsStub, corpus: Path, out: Path, format_: OutputFormat) -> asyncio.subprocess.Process:
    argv = command("corpus", "run", str(corpus), "--out", str(out), "--url", stub.url)
    more = ("--part-rows", "100", "--format", format_)
    return await asyncio.create_subprocess_exec(
        *argv, *more, env=clean({}), stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )


async def until_rows(process: asyncio.subprocess.Process, out: Path, rows: int) -> None:
    """Wait until that many rows are done."""
    async with asyncio.timeout(TIMEOUT_S):
        while not (out / PLAN).exists() or job_state(out).rows_done < rows:
            assert process.returncode is None, "it ended early"
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("format_", "kills"), [(OutputFormat.PARQUET, 3), (OutputFormat.NPY, 2), (OutputFormat.LANCE, 1)]
)
async def test_kill_9_at_random_moments_costs_no_row_and_doubles_none(
    format_: OutputFormat, kills: int, tmp_path: Path
) -> None:
    seeded, corpus, out = random.Random(5), tmp_path / "c.txt", tmp_path / "out"
    corpus.write_text("".join(f"text {row}\n" for row in range(ROWS)), encoding="utf-8")
    async with embeddings_stub(EmbeddingsStub(seconds_per_text=0.001)) as stub:
        for rows in sorted(seeded.sample(range(ROWS - 800), kills)):
            process = await start(stub, corpus, out, format_)
            await until_rows(process, out, rows)
            await asyncio.sleep(seeded.random() * 0.05)  # anywhere in a part
            process.kill()
            assert await process.wait() == -signal.SIGKILL
        process = await start(stub, corpus, out, format_)
        async with asyncio.timeout(TIMEOUT_S):
            assert await process.wait() == 0
    found = vectors_by_id(out)  # fails for a row that is there twice
    assert sorted(map(str, found)) == sorted(map(str, range(ROWS)))
    for row, vector in found.items():
        assert vector is not None
        assert vector.tobytes() == vector_of(f"text {row}", 8).tobytes()
    assert not list(out.rglob("*.tmp"))


async def test_ctrl_c_completes_the_parts_in_work_and_a_second_one_ends_at_once(tmp_path: Path) -> None:
    corpus, out = tmp_path / "c.txt", tmp_path / "out"
    corpus.write_text("".join(f"text {row}\n" for row in range(ROWS)), encoding="utf-8")
    async with embeddings_stub(EmbeddingsStub(seconds_per_text=0.001)) as stub:
        process = await start(stub, corpus, out, OutputFormat.JSONL)
        await until_rows(process, out, 100)
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(TIMEOUT_S):
            assert await process.wait() == 75
        done = job_state(out).rows_done
        assert 100 < done < ROWS
        assert done % 100 == 0
        process = await start(stub, corpus, out, OutputFormat.JSONL)
        await until_rows(process, out, done + 100)
        stub.seconds_per_text = 60.0
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            await asyncio.sleep(0.2)  # else the two are one
        async with asyncio.timeout(TIMEOUT_S):
            assert await process.wait() == 75


async def test_it_starts_a_server_for_itself_if_none_runs(tmp_path: Path) -> None:
    corpus, out = tmp_path / "c.txt", tmp_path / "out"
    corpus.write_text("".join(f"text {row}\n" for row in range(20)), encoding="utf-8")
    config = tmp_path / "host.toml"
    config.write_text("port = 9\n", encoding="utf-8")
    argv = command("corpus", "run", str(corpus), "--out", str(out), "--demo", "--tiny", "--config", str(config))
    env = clean({"TRILLAMA_CACHE": str(tmp_path / "cache")})
    process = await asyncio.create_subprocess_exec(*argv, env=env, stderr=asyncio.subprocess.PIPE)
    async with asyncio.timeout(TIMEOUT_S):
        _, said = await process.communicate()
    assert process.returncode == 0, said.decode()
    assert len(vectors_by_id(out)) == 20
