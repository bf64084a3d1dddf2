"""Jobs and what happens to them: restarts, other models, full disks, cancelling. The embedding is scripted."""

import asyncio
import errno
import itertools
import os
import time
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.batches import owner, run
from proxy.batches.jobs import INPUT, PARTS, BatchJob, BatchJobs, made_of
from proxy.batches.lines import PART_LINES, LineRules, parts_to_do
from proxy.batches.owner import BatchOwner, due
from proxy.batches.records import ENDED, BatchApi, BatchState, BatchStatus, ResultKind, new_spec
from proxy.batches.results import LineResult, write_part
from proxy.batches.run import RunContext
from proxy.batches.storage import BatchLimits, BatchStorage, bytes_kept
from proxy.batches.uploads import FileRecord, UploadedFiles
from proxy.bulk.durable import write_durably
from proxy.bulk.ledger import RowRange
from proxy.edge.middleware import render_common_error
from proxy.errors import BackendError, BackendUnavailable, BodyTooLarge, NotFound, Overloaded, StorageFull
from proxy.types import EmbedRequest, EmbedResult, Provenance
from tests.support.polling import until

MADE = Provenance(digest="d", quantization="q", engine="e", space="one", pooling="mean")
LIMITS = BatchLimits(total_bytes=10**9, file_bytes=10**6, lines=1000, kept_s=3600.0)
RULES = LineRules(max_bytes=10**6, items=2048, dimensions=4, answer_bytes=2**20)


@dataclass
class Engine:
    """Embeds a text, a number, as vectors of that number; until `most` texts, then it waits for `free`."""

    most: float = float("inf")
    space: str = "one"
    seen: Counter[str] = field(default_factory=Counter)
    troubles: list[Exception] = field(default_factory=list)
    free: asyncio.Event = field(default_factory=asyncio.Event)

    async def embed(self, request: EmbedRequest) -> EmbedResult:
        assert request.bulk
        if self.troubles:
            raise self.troubles.pop()
        if self.seen.total() >= self.most:
            await self.free.wait()
        self.seen.update(map(str, request.inputs))
        vectors = np.array([[float(str(text))] * 4 for text in request.inputs], dtype=np.float32)
        made = replace(MADE, space=self.space)
        return EmbedResult(model="m", task="t", prefix="", provenance=made, vectors=vectors, tokens=len(vectors))


@dataclass(frozen=True, slots=True)
class Kept:
    """A folder with jobs."""

    jobs: BatchJobs

    def begin(self, count: int, client: str = "me", api: BatchApi = BatchApi.OPENAI) -> BatchJob:
        lines = ({"custom_id": f"line-{n}", "body": {"input": f"{n}"}} for n in range(count))
        return self.jobs.create(new_spec(client, api), made_of(lines, self.jobs.storage))

    async def when(self, job: BatchJob, reached: Callable[[BatchJob], bool]) -> BatchJob:
        async def found() -> BatchJob | None:
            now = self.jobs.get(job.spec.client, job.spec.id)
            return now if reached(now) else None

        return await until(found)

    async def ended(self, job: BatchJob) -> BatchJob:
        return await self.when(job, lambda now: now.state.status in ENDED and not now.input.exists())

    @asynccontextmanager
    async def owned(self, engine: Engine) -> AsyncIterator[asyncio.Event]:
        """A process that runs the jobs in the block; it is stopped by the event, or killed at the end."""
        storage = self.jobs.storage
        context = RunContext(embed=engine.embed, render_error=render_common_error, storage=storage, rules=RULES)
        stopping = asyncio.Event()
        task = asyncio.create_task(BatchOwner(BatchJobs(storage), context).run(stopping))
        try:
            yield stopping
        finally:
            task.cancel()
            await asyncio.wait((task,))


def opened(folder: Path, **limits: float) -> Kept:
    return Kept(BatchJobs(BatchStorage(folder, replace(LIMITS, **limits))))  # type: ignore[arg-type]


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kept:
    monkeypatch.setattr(owner, "OWNER_POLL_S", 0.05)
    return opened(tmp_path)


def found_in(job: BatchJob, kind: ResultKind = ResultKind.OUTPUT) -> list[dict[str, object]]:
    return [orjson.loads(line) for path in job.results(kind) for line in path.read_bytes().splitlines()]


def ids(job: BatchJob, kind: ResultKind = ResultKind.OUTPUT) -> list[object]:
    return [line["custom_id"] for line in found_in(job, kind)]


async def test_a_job_is_continued_where_another_process_left_it(kept: Kept) -> None:
    first, second = Engine(most=100), Engine()
    job = kept.begin(300)
    async with kept.owned(first):
        await kept.when(job, lambda now: len(now.results(ResultKind.OUTPUT)) > 0 and first.seen.total() >= 100)
        done = ids(job)
    async with kept.owned(second):
        job = await kept.ended(job)
    assert job.state.status is BatchStatus.COMPLETED
    assert ids(job) == [f"line-{n}" for n in range(300)]
    assert (job.state.total, job.state.completed, job.state.failed, job.state.tokens) == (300, 300, 0, 300)
    assert len(done) >= PART_LINES
    assert not set(done) & {f"line-{text}" for text in second.seen}  # what was done is not computed again


async def test_one_process_runs_the_jobs_and_another_takes_over_when_it_stops(kept: Kept) -> None:
    first, second = Engine(most=0), Engine()
    job = kept.begin(5)
    async with kept.owned(first) as stopping:
        await kept.when(job, lambda now: now.state.status is BatchStatus.IN_PROGRESS)
        async with kept.owned(second):
            other = kept.begin(1, client="you")
            await kept.when(other, lambda now: now.state.status is BatchStatus.IN_PROGRESS)
            assert not second.seen
            stopping.set()
            assert (await kept.ended(job)).state.completed == 5
            assert (await kept.ended(other)).state.completed == 1
    assert not first.seen


async def test_a_job_does_not_mix_vector_spaces(kept: Kept) -> None:
    job = kept.begin(2 * PART_LINES)
    async with kept.owned(engine := Engine(most=PART_LINES)):
        await kept.when(job, lambda now: bool(now.state.spaces) and engine.seen.total() >= PART_LINES)
    async with kept.owned(Engine(space="two")):
        job = await kept.ended(job)
    assert job.state.status is BatchStatus.FAILED
    assert job.state.fault
    assert job.state.fault.code == "vector_space_changed"
    assert "began in the vector space one, and the server's is now two" in job.state.fault.message


async def test_troubles_that_pass_are_no_errors_and_others_are_of_their_line_alone(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("random.uniform", lambda *_: 0.0)
    passing = [Overloaded("full", retry_after_s=0), BackendUnavailable("away", retry_after_s=0), BackendError("once")]
    engine = Engine(troubles=[*passing, RuntimeError("a fault of ours")])
    job = kept.begin(3)
    async with kept.owned(engine):
        job = await kept.ended(job)
    assert job.state.status is BatchStatus.COMPLETED
    assert (job.state.completed, job.state.failed) == (2, 1)
    (error,) = found_in(job, ResultKind.ERRORS)
    assert error["response"] is None
    assert error["error"]["code"] == "INTERNAL_ERROR"  # type: ignore[index]


@pytest.mark.parametrize("api", BatchApi)
async def test_a_cancelled_job_frees_its_place_and_its_disk(kept: Kept, api: BatchApi) -> None:
    engine = Engine(most=PART_LINES)
    job, behind = kept.begin(3 * PART_LINES, api=api), kept.begin(1)
    async with kept.owned(engine):
        await kept.when(job, lambda now: bool(now.results(ResultKind.OUTPUT)))
        kept.jobs.cancel(job)
        assert kept.jobs.get("me", job.spec.id).status is BatchStatus.CANCELLING
        job = await kept.ended(job)
        engine.free.set()
        await kept.ended(behind)
    assert job.state.status is BatchStatus.CANCELLED
    assert (len(ids(job)) >= PART_LINES) is (api is BatchApi.OPENAI)  # which promises what is done
    kept.jobs.delete(job)
    assert not list(kept.jobs.storage.jobs.glob(f"*{job.spec.id}*"))


async def test_a_job_that_waits_behind_another_can_be_cancelled(kept: Kept) -> None:
    job, behind = kept.begin(1), kept.begin(1)
    async with kept.owned(engine := Engine(most=0)):
        await kept.when(job, lambda now: now.state.status is BatchStatus.IN_PROGRESS)
        kept.jobs.cancel(behind)
        assert (await kept.ended(behind)).state.status is BatchStatus.CANCELLED
        engine.free.set()
        assert (await kept.ended(job)).state.status is BatchStatus.COMPLETED


async def test_a_full_disk_makes_a_job_wait_and_says_so(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    full, written_before = asyncio.Event(), write_durably

    def write(path: Path, content: Callable[..., object]) -> None:
        if not full.is_set():
            raise OSError(errno.ENOSPC, "No space left on device")
        written_before(path, content)

    monkeypatch.setattr("proxy.batches.results.write_durably", write)
    monkeypatch.setattr(run, "DISK_RETRY_S", 0.01)
    job = kept.begin(2)
    async with kept.owned(Engine()):
        waits = await kept.when(job, lambda now: now.state.obstacle is not None)
        assert waits.state.obstacle
        assert waits.state.obstacle.code == "DISK_FULL"
        full.set()
        job = await kept.ended(job)
    assert (job.state.completed, job.state.obstacle) == (2, None)


async def test_what_is_kept_is_bounded(tmp_path: Path) -> None:
    kept = opened(tmp_path, total_bytes=3 * 2**20)
    async with UploadedFiles(kept.jobs.storage).receiving() as upload:
        for _ in range(3):
            upload.write(b"x" * 300_000)
        with pytest.raises(BodyTooLarge, match="larger than 1000000 bytes"):
            upload.write(b"x" * 300_000)
    assert not list(kept.jobs.storage.files.iterdir())  # what was not kept is gone
    kept.jobs.storage.take(2 * 2**20)
    with pytest.raises(StorageFull, match="max_batch_bytes is 3145728"):
        kept.jobs.storage.take(2**20)
    assert bytes_kept(tmp_path) == 0
    kept.jobs.storage.take(2**20)  # counted again


def test_an_input_that_does_not_fit_is_not_made_to_its_end(tmp_path: Path) -> None:
    kept, lines = opened(tmp_path, total_bytes=10_000), ({"custom_id": f"{n}" * 1000} for n in itertools.count())
    with pytest.raises(StorageFull):
        kept.jobs.create(new_spec("me", BatchApi.JINA), made_of(lines, kept.jobs.storage))
    assert not list(kept.jobs.storage.jobs.iterdir())


def test_a_line_of_many_vectors_is_written_in_slices(kept: Kept) -> None:
    vectors = np.random.default_rng(0).standard_normal((512, 2048), dtype=np.float32)
    line, rows = LineResult(ResultKind.OUTPUT, {"data": [{"embedding": one} for one in vectors]}), RowRange(0, 0, 1)
    job = kept.begin(1)
    ledger = job.ledger()
    tracemalloc.start()
    try:
        assert write_part(ledger, kept.jobs.storage, rows, [line]) is None
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    (found,) = found_in(job)
    assert np.array_equal(np.array([one["embedding"] for one in found["data"]], dtype=np.float32), vectors)  # type: ignore[attr-defined]
    assert peak < job.results(ResultKind.OUTPUT)[0].stat().st_size / 5


async def test_what_is_too_old_is_deleted(tmp_path: Path) -> None:
    kept = opened(tmp_path)
    files, old = UploadedFiles(kept.jobs.storage), time.time() - 2 * LIMITS.kept_s
    names = []
    for created_at, expires_at in ((old, None), (time.time(), old), (time.time(), None)):
        async with files.receiving() as upload:
            record = FileRecord(
                id=upload.id,
                client="me",
                filename="f",
                purpose="batch",
                bytes=0,
                created_at=created_at,
                expires_at=expires_at,
            )
            await upload.keep(record)
            names.append(upload.id)
    ended, fresh = kept.begin(1), kept.begin(1)
    ended.save(BatchState(status=BatchStatus.COMPLETED, ended_at=old))
    async with kept.owned(Engine()):
        await kept.ended(fresh)
    with pytest.raises(NotFound):
        kept.jobs.get("me", ended.spec.id)
    assert [one.id for one in files.of("me")] == names[2:]


def test_what_a_crash_left_of_a_job_is_deleted(kept: Kept) -> None:
    made = [kept.begin(1).folder for _ in range(3)]
    old, new = [folder.rename(folder.with_name(f".{folder.name}")) for folder in made[:2]]
    for folder in (old, made[2]):
        os.utime(folder, (0, 0))
    kept.jobs.delete_old()
    assert set(kept.jobs.storage.jobs.iterdir()) == {new, made[2]}


def test_each_key_has_one_job_at_a_time(kept: Kept) -> None:
    jobs = [kept.begin(1, client=client) for client in "aabbcdef"]
    first = due(jobs, [])
    assert [job.spec.client for job in first] == ["a", "b", "c", "d"]
    running = [job.spec.id for job in first]
    assert due(jobs, running) == []
    assert due(jobs[1:], running[1:]) == [jobs[1]]


@settings(max_examples=25)
@given(st.sets(st.integers(0, 40)), st.integers(1, 9))
def test_the_parts_that_are_left_are_the_lines_that_are_not_done(
    tmp_path_factory: pytest.TempPathFactory, cuts: set[int], every: int
) -> None:
    path = tmp_path_factory.mktemp("lines") / INPUT
    path.write_bytes(b"\n".join(b'{"custom_id":"%d","body":{"input":"%d"}}\n' % (n, n) for n in range(40)))
    edges = sorted({0, 40, *cuts})
    ranges = [RowRange(0, *edge) for edge in itertools.pairwise(edges)]
    done = set(ranges[::every])
    rows = [row for one in done for row in range(one.start, one.stop)]
    for part, calls in parts_to_do(path, done, RULES):
        assert [line.custom_id for line in part.lines] == [f"{n}" for n in range(part.rows.start, part.rows.stop)]
        assert calls == [[line] for line in part.lines]
        rows += range(part.rows.start, part.rows.stop)
    assert sorted(rows) == list(range(40))


def test_what_a_killed_run_left_of_a_part_is_no_result(kept: Kept) -> None:
    job = kept.begin(1)
    parts = job.folder / PARTS
    parts.mkdir()
    (parts / f"{RowRange(0, 0, 1).name}{ResultKind.OUTPUT.suffix}").write_bytes(b"{}\n")
    assert job.results(ResultKind.OUTPUT) == []
