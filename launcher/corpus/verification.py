"""`trillama corpus verify`: reads a whole job again, and embeds a sample of it once more."""

import asyncio
import random
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from launcher.arrays import F32
from launcher.corpus.endpoint import EmbeddingEndpoint
from launcher.corpus.job import done_parts, failed_rows, open_job, owned, parts_of
from launcher.corpus.output.stored import PartWriter, VectorType
from launcher.corpus.plan import CorpusPlan, check_space
from launcher.corpus.rows.inputs import check_unchanged
from launcher.corpus.session import ServerChoice, reached
from launcher.errors import CorpusError
from proxy.bulk.ledger import RowRange
from proxy.bulk.runner import BulkRunner, RowError

MIN_COSINE: Mapping[VectorType, float] = {  # of a stored vector to the one computed now
    VectorType.FLOAT32: 0.999,
    VectorType.FLOAT16: 0.999,
    VectorType.INT8: 0.99,
    VectorType.UBINARY: 0.95,  # of the two vectors' signs
}
MOST_FAULTS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """`faults` are sentences. `least_cosine` of the `compared` rows."""

    rows: int
    faults: Sequence[str]
    compared: int
    least_cosine: float


@dataclass(frozen=True, slots=True)
class SampleRow:
    text: str
    stored: F32
    name: str


async def verify_job(folder: Path, plan: CorpusPlan, server: ServerChoice, sample: int) -> Verified:
    """Check all parts, then the sample. Raises LauncherError if a part or the server cannot be asked."""
    with owned(folder):
        faults = await asyncio.to_thread(lambda: list(stored_faults(folder, plan)))
        cosines = list[float]()
        if sample and not faults:
            check_unchanged(plan.inputs)
            chosen = await asyncio.to_thread(_sampled, folder, plan, sample)
            cosines = await server.use(plan.options, lambda endpoint: _cosines(endpoint, plan, chosen))
            least = MIN_COSINE[plan.options.dtype]
            faults += [
                f"{row.name}: cosine {cosine:.4f} to the vector that the server computes now"
                for row, cosine in zip(chosen, cosines, strict=True)
                if not cosine >= least
            ]
    rows = sum(part.rows for part in done_parts(folder, plan))
    return Verified(
        rows=rows, faults=faults[:MOST_FAULTS], compared=len(cosines), least_cosine=min(cosines, default=1.0)
    )


def stored_faults(folder: Path, plan: CorpusPlan) -> Iterator[str]:
    """What is wrong with the parts that are there, and which rows are not."""
    done = done_parts(folder, plan)
    yield from gaps(plan, done)
    job = open_job(folder, plan)
    failed = failed_rows(folder, done)
    for part in sorted(done):
        try:
            yield from _part_faults(job.writer, part, failed.get(part, ()))
        except CorpusError as error:
            yield str(error)


def gaps(plan: CorpusPlan, done: Collection[RowRange]) -> Iterator[str]:
    """The rows of the inputs that no part has, or that several have."""
    for source, one in enumerate(plan.inputs):
        at = 0
        for part in sorted(part for part in done if part.source == source):
            if part.start != at:
                word = "are in no part" if part.start > at else "are in two parts"
                yield f"{one.path}: rows {min(at, part.start)} to {max(at, part.start) - 1} {word}"
            at = max(at, part.stop)
        if at != one.rows:
            yield f"{one.path}: rows {at} to {one.rows - 1} are not done: `trillama corpus resume` does them"


def _part_faults(writer: PartWriter, part: RowRange, failed: Collection[int]) -> Iterator[str]:
    stored = writer.read(part)
    if not len(stored.ids) == len(stored.vectors) == part.rows:
        yield f"{writer.ledger.path(part)}: {len(stored.vectors)} rows, not {part.rows}"
        return
    finite = np.isfinite(stored.vectors.astype(np.float32)).all(axis=1)
    some = stored.vectors.any(axis=1) | (stored.vectors.dtype == np.uint8)  # bits may all be 0
    wrong = [int(row) for row in np.flatnonzero(~(finite & some)) if row not in failed]
    for row in wrong[:MOST_FAULTS]:
        yield f"{writer.ledger.path(part)}: row {part.start + row} has no vector, and is not among the errors"


def _sampled(folder: Path, plan: CorpusPlan, count: int) -> list[SampleRow]:
    """Rows from all over the corpus, each with its stored vector."""
    done = sorted(done_parts(folder, plan))
    places = random.sample(range(plan.rows), min(count, plan.rows))
    by_part = defaultdict[RowRange, list[int]](list)
    for place in sorted(places):
        source = next(at for at, first in enumerate(plan.first_rows[1:]) if place < first)
        row = place - plan.first_rows[source]
        part = next(part for part in done if part.source == source and part.start <= row < part.stop)
        by_part[part].append(row - part.start)
    writer, failed = open_job(folder, plan).writer, failed_rows(folder, set(done))
    chosen = list[SampleRow]()
    for part, rows in parts_of(plan, lambda part: part not in by_part, range(len(plan.inputs))):
        vectors = plan.options.dtype.floats(writer.read(part).vectors, plan.space.dimensions)
        for at in by_part[part]:
            text = rows[at].text
            if text is not None and at not in failed.get(part, ()):
                chosen.append(SampleRow(text, vectors[at], f"{plan.inputs[part.source].path}, row {part.start + at}"))
    return chosen


async def _cosines(endpoint: EmbeddingEndpoint, plan: CorpusPlan, chosen: Sequence[SampleRow]) -> list[float]:
    check_space(plan, await reached(endpoint))
    endpoint.space = plan.space
    answers = list[F32 | RowError]()

    async def keep(_: None, results: Sequence[F32 | RowError]) -> None:
        answers.extend(results)

    calls = [[row.text] for row in chosen]
    await BulkRunner(send=endpoint.embed, healthy=endpoint.healthy).run(iter([(None, calls)]), keep)
    type_ = plan.options.dtype
    return [
        float("nan") if isinstance(now, RowError) else _cosine(row.stored, _as_stored(type_, now))
        for row, now in zip(chosen, answers, strict=True)
    ]


def _as_stored(type_: VectorType, vector: F32) -> F32:
    return type_.floats(type_.stored(vector[np.newaxis]), len(vector)).reshape(-1)


def _cosine(a: F32, b: F32) -> float:
    return float(a @ b / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-30))
