"""`trillama corpus run --dry-run`: how many rows and tokens a corpus has, and how long and how large it would be."""

import asyncio
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from launcher.arrays import F32
from launcher.corpus.endpoint import EmbeddingEndpoint
from launcher.corpus.pending import CALL_TEXTS
from launcher.corpus.plan import GivenFile, JobOptions
from launcher.corpus.rows.sources import reader_of
from launcher.corpus.session import ServerChoice, reached
from proxy.bulk.runner import BulkRunner, Calls, RowError, RowFault, ServerBusy

SAMPLE = 512  # texts that are embedded, to see how fast the server is
COUNTED_AT_ONCE = 16  # calls of texts whose tokens are counted


@dataclass(slots=True)
class Census:
    """What one pass over the corpus finds; `sample` are texts from all over it."""

    rows: int = 0
    without_text: int = 0
    characters: int = 0
    sample: list[str] = field(default_factory=list)
    _random: random.Random = field(default_factory=lambda: random.Random(1))  # noqa: S311 # a sample is no secret

    def texts(self, files: Sequence[GivenFile]) -> Iterator[str]:
        """Every text of the files, counted as it passes."""
        for path, format_, columns in files:
            for record in reader_of(path, format_, columns).records():
                text = record.decode(self.rows).text
                self.rows += 1
                if text is None:
                    self.without_text += 1
                else:
                    self._count(text)
                    yield text

    def _count(self, text: str) -> None:
        self.characters += len(text)
        seen = self.rows - self.without_text
        if len(self.sample) < SAMPLE:
            self.sample.append(text)
        elif (place := self._random.randrange(seen)) < SAMPLE:
            self.sample[place] = text


async def estimated(server: ServerChoice, files: Sequence[GivenFile], options: JobOptions) -> str:
    """Count the corpus, embed a sample of it, and say in lines what all of it would take. Raises LauncherError."""

    async def work(endpoint: EmbeddingEndpoint) -> str:
        space = await reached(endpoint)
        census, tokens = Census(), None
        if await _counts_tokens(endpoint):
            tokens = await _counted(endpoint, census.texts(files))
        else:
            await asyncio.to_thread(lambda: sum(1 for _ in census.texts(files)))
        began = time.monotonic()
        await _embed(endpoint, census.sample)
        per_s = endpoint.tokens / max(time.monotonic() - began, 1e-3)
        about = "" if tokens is not None else "about "
        if tokens is None:
            tokens = round(endpoint.tokens * census.characters / max(1, sum(map(len, census.sample))))
        size = census.rows * options.dtype.width(space.dimensions) * options.dtype.numpy.itemsize
        hours = tokens / max(per_s, 1e-3) / 3600
        return "\n".join(
            (
                f"rows             {census.rows}, {census.without_text} of them without a text",
                f"tokens           {about}{tokens}",
                f"hours            {hours:.2f}, at {per_s:.0f} tokens/s, as {len(census.sample)} of the texts just had",
                f"GiB              {size / 2**30:.3f}, {space.dimensions} dimensions as {options.dtype}",
            )
        )

    return await server.use(options, work)


async def _counts_tokens(endpoint: EmbeddingEndpoint) -> bool:
    """Whether the server counts tokens now; otherwise the sample's must do."""
    try:
        return await endpoint.count_tokens(["text"]) is not None
    except (RowFault, ServerBusy):
        return False


async def _counted(endpoint: EmbeddingEndpoint, texts: Iterator[str]) -> int:
    """The tokens of all texts, exactly."""
    total = 0

    async def add(_: None, results: Sequence[int | RowError]) -> None:
        nonlocal total
        total += sum(one for one in results if isinstance(one, int))

    async def count(call: Sequence[str]) -> list[int]:
        return [await endpoint.count_tokens(call) or 0] + [0] * (len(call) - 1)

    def parts() -> Iterator[tuple[None, Calls[str]]]:
        while calls := [call for _ in range(COUNTED_AT_ONCE) if (call := list(islice(texts, CALL_TEXTS)))]:
            yield None, calls

    await BulkRunner(send=count, healthy=endpoint.healthy).run(parts(), add)
    return total


async def _embed(endpoint: EmbeddingEndpoint, texts: Sequence[str]) -> None:
    async def ignore(_: None, __: Sequence[F32 | RowError]) -> None:
        """Only the time counts."""

    calls = [texts[at : at + CALL_TEXTS] for at in range(0, len(texts), CALL_TEXTS)]
    await BulkRunner(send=endpoint.embed, healthy=endpoint.healthy).run(iter([(None, calls)]), ignore)
