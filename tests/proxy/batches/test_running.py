"""Jobs as they run: restarts, a second process, other models, full disks, cancelling. The embedding is scripted."""

import asyncio
import errno
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.batches import run
from proxy.batches.jobs import INPUT
from proxy.batches.lines import PART_LINES, parts_to_do
from proxy.batches.owner import due
from proxy.batches.records import BatchApi, BatchStatus, ResultKind
from proxy.bulk.durable import write_durably
from proxy.bulk.ledger import RowRange
from proxy.errors import BackendError, BackendUnavailable, Overloaded
from tests.proxy.batches.job_folder import RULES, Engine, Kept, found_in, ids


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


async def test_passing_faults_are_no_errors_and_others_are_of_their_line_alone(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("random.uniform", lambda *_: 0.0)
    passing = [Overloaded("full", retry_after_s=0), BackendUnavailable("away", retry_after_s=0), BackendError("once")]
    engine = Engine(faults=[*passing, RuntimeError("a fault of ours")])
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
