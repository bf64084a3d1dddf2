"""Jobs end in one of four ways, and what is kept for clients is bounded in number, bytes and time."""

import asyncio
import gc
import weakref

import numpy as np
import pytest

from proxy.dialects.jobs import Bounds, Job, Jobs, JobStatus, running_jobs
from proxy.errors import NotFound, Overloaded, ProxyError
from proxy.scheduling.memory_budget import MemoryBudget, Reservation
from proxy.types import EmbedRequest, EmbedResult, Provenance
from proxy.wire.dialect import ParsedRequest

MADE = Provenance(digest="", quantization="", engine="", space="", pooling="mean")
DEADLINE_S = 10


def asked(text: str = "a") -> ParsedRequest:
    return ParsedRequest(EmbedRequest(inputs=(text,)), lambda result: result.tokens)


class Texts(list[str]):
    """A list that can be weakly referenced."""


def room(budget: MemoryBudget | None = None, size: int = 0) -> Reservation:
    """The memory reserved for a request that was read."""
    return Reservation(budget or MemoryBudget(1000), size)


async def embed(request: EmbedRequest) -> EmbedResult:
    """256 floats per text; `wait` never ends, `fail` and `break` fail."""
    match request.inputs[0]:
        case "wait":
            await asyncio.Event().wait()
        case "fail":
            raise ProxyError("no luck")
        case "break":
            raise RuntimeError("a bug")
    vectors = np.zeros((1, 256), dtype=np.float32)
    return EmbedResult(model="m", task="t", prefix="", provenance=MADE, vectors=vectors, tokens=1)


async def reach(job: Job, *states: JobStatus) -> Job:
    async with asyncio.timeout(DEADLINE_S):
        while job.status not in states or (job.ended is None and JobStatus.IN_PROGRESS not in states):
            await asyncio.sleep(0)
    return job


@pytest.mark.parametrize(
    ("text", "state"), [("a", JobStatus.COMPLETED), ("fail", JobStatus.FAILED), ("break", JobStatus.FAILED)]
)
async def test_a_job_ends_as_its_request_does(text: str, state: JobStatus) -> None:
    async with running_jobs(embed, lambda: 7) as jobs:
        job = await reach(jobs.submit(asked(text), room()), state)
        assert jobs.fetch(job.id) is job
        assert (job.result is not None, job.error is not None) == (
            state is JobStatus.COMPLETED,
            state is JobStatus.FAILED,
        )
        await reach(jobs.submit(asked(), room()), JobStatus.COMPLETED)  # a broken one does not end the others


async def test_a_few_run_and_the_rest_wait_in_the_queue() -> None:
    async with running_jobs(embed, lambda: 7, Bounds(at_once=1)) as jobs:
        first = await reach(jobs.submit(asked("wait"), room()), JobStatus.IN_PROGRESS)
        second = jobs.submit(asked(), room())
        await asyncio.sleep(0)
        assert second.status is JobStatus.IN_QUEUE
        jobs.cancel(first.id)
        await reach(second, JobStatus.COMPLETED)
        assert first.status is JobStatus.CANCELLED


async def test_a_full_queue_refuses_and_a_cancelled_job_makes_room() -> None:
    async with running_jobs(embed, lambda: 7, Bounds(unfinished=2)) as jobs:
        waiting = [jobs.submit(asked("wait"), room()) for _ in range(2)]
        with pytest.raises(Overloaded, match="2 jobs are unfinished") as refused:
            jobs.submit(asked(), room())
        assert refused.value.retry_after_s == 7
        jobs.cancel(waiting[0].id)  # before it ever ran
        await reach(waiting[0], JobStatus.CANCELLED)
        await reach(jobs.submit(asked(), room()), JobStatus.COMPLETED)


async def test_exit_cancels_unfinished_jobs() -> None:
    async with asyncio.timeout(DEADLINE_S), running_jobs(embed, lambda: 7) as jobs:
        started = await reach(jobs.submit(asked("wait"), room()), JobStatus.IN_PROGRESS)
        waiting = jobs.submit(asked("wait"), room())
    assert {started.status, waiting.status} == {JobStatus.CANCELLED}


async def test_a_cancelled_job_that_has_ended_keeps_its_end() -> None:
    async with running_jobs(embed, lambda: 7) as jobs:
        job = await reach(jobs.submit(asked(), room()), JobStatus.COMPLETED)
        assert jobs.cancel(job.id).status is JobStatus.COMPLETED


async def gone(jobs: Jobs, job: Job) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                jobs.fetch(job.id)
            except NotFound:
                return
            await asyncio.sleep(0.005)  # polling does not keep it


async def test_a_job_nobody_fetches_is_dropped_after_a_while() -> None:
    async with running_jobs(embed, lambda: 7, Bounds(kept_s=0.02)) as jobs:
        job = await reach(jobs.submit(asked(), room()), JobStatus.COMPLETED)
        await asyncio.sleep(0.1)
        with pytest.raises(NotFound):
            jobs.fetch(job.id)


async def test_a_fetched_job_is_dropped_sooner() -> None:
    async with running_jobs(embed, lambda: 7, Bounds(fetched_s=0.02)) as jobs:
        job = await reach(jobs.submit(asked(), room()), JobStatus.COMPLETED)
        jobs.fetch(job.id)
        await gone(jobs, job)


@pytest.mark.parametrize("bounds", [Bounds(kept=2), Bounds(kept_bytes=2 * 1024)])
async def test_the_job_that_finished_first_makes_room(bounds: Bounds) -> None:
    async with running_jobs(embed, lambda: 7, bounds) as jobs:
        first, second, third = [await reach(jobs.submit(asked(), room()), JobStatus.COMPLETED) for _ in range(3)]
        with pytest.raises(NotFound):
            jobs.fetch(first.id)
        assert (jobs.fetch(second.id), jobs.fetch(third.id)) == (second, third)


async def test_the_newest_is_kept_however_large() -> None:
    async with running_jobs(embed, lambda: 7, Bounds(kept_bytes=1)) as jobs:
        for _ in range(2):
            job = await reach(jobs.submit(asked(), room()), JobStatus.COMPLETED)
            assert jobs.fetch(job.id) is job


async def test_a_job_holds_the_bytes_of_its_request_until_it_ends() -> None:
    budget = MemoryBudget(1000)
    async with running_jobs(embed, lambda: 7) as jobs:
        with budget.room() as own:
            own.grow(300)
            job = jobs.submit(asked("wait"), own)
        await reach(job, JobStatus.IN_PROGRESS)
        assert budget.held == 300
        jobs.cancel(job.id)
        await reach(job, JobStatus.CANCELLED)
        assert budget.held == 0


async def test_a_failed_job_does_not_keep_its_texts() -> None:
    async with running_jobs(embed, lambda: 7) as jobs:
        texts = Texts(["fail"])
        kept = weakref.ref(texts)
        job = jobs.submit(ParsedRequest(EmbedRequest(inputs=texts), lambda result: result.tokens), room())
        del texts
        await reach(job, JobStatus.FAILED)
        gc.collect()
        assert (job.error, kept()) == ("no luck", None)
