"""What the console reads of a queue: lanes, quarantined texts, and how long a request waited."""

import asyncio

from proxy.errors import ProxyError
from proxy.scheduling.batch_queue import BatchQueue
from proxy.scheduling.entries import Caller, QueuedRequest, TokenizedText
from proxy.scheduling.fairness import LaneLoad
from proxy.scheduling.quarantine import FIRST_S, Suspects, text_digest
from proxy.telemetry.requests import RequestLog
from proxy.telemetry.timing import Timing


async def test_the_lanes_count_what_waits_until_it_is_sent_or_cancelled() -> None:
    queue, loop = BatchQueue(slots=4, batch_tokens=64, max_tokens=10_000), asyncio.get_running_loop()
    short, long, left = (QueuedRequest(1, loop.create_future(), Caller(client=name)) for name in "abc")
    queue.enqueue(short, [TokenizedText(b"[1]", 5)])
    queue.enqueue(long, [TokenizedText(b"[2]", 50)])
    queue.enqueue(left, [TokenizedText(b"[3]", 60)])
    left.fail(ProxyError("gone"))
    queue.cancel(left)
    assert left.done.exception()
    assert queue.lanes == {"interactive": LaneLoad(1, 5), "bulk": LaneLoad(1, 50)}
    queue.next_batch(0.0)
    assert queue.lanes["interactive"] == LaneLoad(0, 0)


def test_quarantined_texts_are_told_by_digest_until_their_time_is_over() -> None:
    suspects, poison = Suspects(), b"[64]"
    assert suspects.quarantined(0.0) == {}
    for now in (0.0, 10.0):
        suspects.ended_with([poison], 0.1, now)
    assert suspects.quarantined(11.0) == {text_digest(poison).hex(): FIRST_S - 1.0}
    assert suspects.quarantined(FIRST_S + 10.0) == {}


def test_a_timing_spans_all_queues_that_a_request_passed() -> None:
    timing = Timing()
    assert (timing.wait_s, timing.compute_s) == (0.0, 0.0)
    timing.note(1.0, 1.5, 3.0)
    timing.note(3.0, None, 4.0)  # it joined texts that were in flight
    assert (timing.wait_s, timing.compute_s) == (0.5, 2.5)


def test_an_empty_log_has_nothing_to_tell() -> None:
    log = RequestLog()
    assert (log.since(0), log.routes(), log.clients()) == ([], [], {})
