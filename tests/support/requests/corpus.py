"""Corpora of the tests, in every format, and jobs that run in the test's own event loop."""

import asyncio
import csv
import gzip
import io
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
from pyarrow import parquet

from launcher.arrays import F32
from launcher.corpus.display import JobDisplay
from launcher.corpus.job import JobState, failed_rows, job_state, open_job
from launcher.corpus.output.stored import OutputFormat, VectorType
from launcher.corpus.plan import GivenJob, GivenServer, JobOptions, read_plan, resumed
from launcher.corpus.rows.records import UsedColumns
from launcher.corpus.rows.sources import given_files
from launcher.corpus.session import RunRequest, ServerChoice, run_job
from launcher.corpus.verification import Verified, verify_job
from launcher.printable import Terminal
from launcher.terminal.options import settings_of
from proxy.bulk.runner import RetryPolicy
from tests.support.servers.embeddings_stub import EmbeddingsStub

Rows = Sequence[Mapping[str, str | int]]
AT_ONCE = RetryPolicy(first_pause_s=0, longest_pause_s=0)
SOME: Rows = tuple({"doc": f"d{row}", "text": f"text {row}", "year": 2000 + row} for row in range(25))


def jsonl(rows: Rows) -> bytes:
    return b"".join(orjson.dumps(row) + b"\n" for row in rows)


def separated(rows: Rows, delimiter: str = ",") -> bytes:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode()


def parquet_bytes(rows: Rows) -> bytes:
    file = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist([dict(row) for row in rows]), file, row_group_size=10)
    return file.getvalue()


CORPORA: Mapping[str, Callable[[Rows], bytes]] = {
    "c.jsonl": jsonl,
    "c.jsonl.gz": lambda rows: gzip.compress(jsonl(rows)),
    "c.jsonl.zst": lambda rows: pa.compress(jsonl(rows), codec="zstd", asbytes=True),
    "c.csv": separated,
    "c.tsv": lambda rows: separated(rows, "\t"),
    "c.parquet": parquet_bytes,
    "c.txt": lambda rows: b"".join(f"{row['text']}\n".encode() for row in rows),
}


def server_of(stub: EmbeddingsStub) -> ServerChoice:
    return ServerChoice(
        settings=settings_of(None, demo=True, tiny=True), url=stub.url, api_key=None, err=Terminal(stderr=True)
    )


async def run_corpus(
    stub: EmbeddingsStub,
    out: Path,
    *files: Path,
    options: JobOptions | None = None,
    columns: UsedColumns | None = None,
    stop: asyncio.Event | None = None,
    dedupe: bool = False,
) -> JobState:
    """`trillama corpus run`, without pauses between tries; in parts of ten rows unless told otherwise."""
    options = options or JobOptions(part_rows=10)
    given = given_files([str(file) for file in files], None, columns or UsedColumns(), out)
    request = RunRequest(
        folder=out,
        options=options,
        plan=GivenJob(folder=out, files=given, options=options, server=GivenServer(url=stub.url)).plan,
        display=JobDisplay(Terminal(stderr=True)),
        concurrency=4,
        dedupe=dedupe,
        policy=AT_ONCE,
    )
    await run_job(server_of(stub), request, stop or asyncio.Event())
    return job_state(out)


async def resume_corpus(stub: EmbeddingsStub, out: Path, *, retry: bool = False) -> JobState:
    """`trillama corpus resume`, or `errors --retry`."""
    plan = read_plan(out)
    request = RunRequest(
        folder=out,
        options=plan.options,
        plan=partial(resumed, plan),
        display=JobDisplay(Terminal(stderr=True)),
        concurrency=4,
        retry=retry,
        policy=AT_ONCE,
    )
    await run_job(server_of(stub), request, asyncio.Event())
    return job_state(out)


async def verified(stub: EmbeddingsStub, out: Path, sample: int = 8) -> Verified:
    return await verify_job(out, read_plan(out), server_of(stub), sample)


def vectors_by_id(out: Path) -> dict[object, F32 | None]:
    """Each row's vector as floats, None without one. Fails for an id that is there twice."""
    plan = read_plan(out)
    job, found = open_job(out, plan), dict[object, F32 | None]()
    failed = failed_rows(out, job.writer.ledger.done)
    for part in sorted(job.writer.ledger.done):
        stored = job.writer.read(part)
        floats = plan.options.dtype.floats(stored.vectors, plan.space.dimensions)
        for row, (id_, vector) in enumerate(zip(stored.ids, floats, strict=True)):
            assert id_ not in found
            found[id_] = None if row in failed.get(part, ()) else np.asarray(vector)
    return found


def every_output() -> list[tuple[OutputFormat, VectorType]]:
    return [(format_, type_) for format_ in OutputFormat for type_ in VectorType]
