"""A folder with jobs, and a scripted embedding that runs them."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import orjson

from proxy.batches.jobs import BatchJob, BatchJobs, made_of
from proxy.batches.lines import LineRules
from proxy.batches.owner import BatchOwner
from proxy.batches.records import ENDED, BatchApi, ResultKind, new_spec
from proxy.batches.run import RunContext
from proxy.batches.storage import BatchLimits, BatchStorage
from proxy.edge.middleware import render_common_error
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
    faults: list[Exception] = field(default_factory=list)
    free: asyncio.Event = field(default_factory=asyncio.Event)

    async def embed(self, request: EmbedRequest) -> EmbedResult:
        assert request.bulk
        if self.faults:
            raise self.faults.pop()
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


def found_in(job: BatchJob, kind: ResultKind = ResultKind.OUTPUT) -> list[dict[str, object]]:
    return [orjson.loads(line) for path in job.results(kind) for line in path.read_bytes().splitlines()]


def ids(job: BatchJob, kind: ResultKind = ResultKind.OUTPUT) -> list[object]:
    return [line["custom_id"] for line in found_in(job, kind)]
