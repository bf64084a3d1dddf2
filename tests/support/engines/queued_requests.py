"""Requests in a queue that is not served, for tests of its decisions."""

import asyncio
import itertools
from collections.abc import Sequence

from hypothesis import strategies as st

from proxy.scheduling.batch_queue import BatchQueue
from proxy.scheduling.entries import Caller, QueuedRequest, QueuedText, TokenizedText

SLOTS, BATCH = 4, 100
SMALL = BATCH // 4
LENGTHS = st.lists(st.integers(1, BATCH), min_size=1, max_size=12)

CLOSED_LOOP = asyncio.new_event_loop()
CLOSED_LOOP.close()  # only to make futures that are never awaited
NUMBERS = itertools.count()


def queue(max_tokens: int = 10**9) -> BatchQueue:
    return BatchQueue(slots=SLOTS, batch_tokens=BATCH, max_tokens=max_tokens)


def enqueue(
    waiting: BatchQueue, *lengths: int, client: str = "", now: float = 0.0, deadline: float = 1e9, bulk: bool = False
) -> QueuedRequest:
    """A request of new texts."""
    asked = [TokenizedText(b"%d" % next(NUMBERS), length) for length in lengths]
    return join(waiting, asked, client, now, deadline, bulk=bulk)


def join(
    waiting: BatchQueue,
    asked: Sequence[TokenizedText],
    client: str = "",
    now: float = 0.0,
    deadline: float = 1e9,
    *,
    bulk: bool = False,
) -> QueuedRequest:
    caller = Caller(client=client, deadline=deadline, bulk=bulk)
    job = QueuedRequest(len(asked), asyncio.Future(loop=CLOSED_LOOP), caller, now)
    assert waiting.enqueue(job, asked) is not None
    return job


def owners(call: Sequence[QueuedText]) -> list[QueuedRequest]:
    return [job for text in call for job, _ in text.waiters]


def tokens(call: Sequence[QueuedText], *jobs: QueuedRequest) -> int:
    return sum(text.tokens for text in call if not jobs or text.waiters[0][0] in jobs)
