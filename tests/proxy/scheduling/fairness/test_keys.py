"""Fair shares of keys, and of the requests of a key."""

import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.scheduling.entries import Caller, QueuedRequest, TokenizedText
from tests.support.engines.queued_requests import (
    BATCH,
    CLOSED_LOOP,
    NUMBERS,
    SMALL,
    enqueue,
    join,
    owners,
    queue,
    tokens,
)


@given(
    st.lists(st.integers(1, BATCH), min_size=40, max_size=40),
    st.lists(st.integers(1, BATCH), min_size=40, max_size=40),
    st.integers(1, 5),
)
def test_two_keys_get_the_same_however_many_requests_each_has(first: list[int], second: list[int], many: int) -> None:
    waiting = queue()
    ones = [enqueue(waiting, *first, client="one") for _ in range(many)]
    other = enqueue(waiting, *second, client="other")
    had = {True: 0, False: 0}
    while True:
        call = waiting.next_batch(0)
        for text in call:
            had[text.waiters[0][0] in ones] += text.tokens
        if all(text.taken for text in other.texts) or all(text.taken for job in ones for text in job.texts):
            break
        assert abs(had[True] - had[False]) <= 3 * BATCH


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.lists(st.integers(SMALL + 1, BATCH), min_size=1, max_size=12)), max_size=12
    )
)
def test_no_request_of_a_key_is_done_later_than_with_equal_shares(requests: list[tuple[int, list[int]]]) -> None:
    """`requests`: how many batches after the previous one each arrives, and the lengths of its texts: all are bulk."""
    waiting, served = queue(), 0
    arrived: dict[QueuedRequest, int] = {}
    done: dict[QueuedRequest, int] = {}

    def call() -> None:
        nonlocal served
        served += tokens(waiting.next_batch(0))
        done.update({job: served for job in arrived if job not in done and all(text.taken for text in job.texts)})

    for calls, lengths in requests:
        for _ in range(calls):
            call()
        arrived[enqueue(waiting, *lengths)] = served
    while waiting:
        call()
    sizes = {job: sum(text.tokens for text in job.texts) for job in arrived}
    for job, at in equal_shares(arrived, sizes).items():
        assert done[job] <= at + 3 * BATCH


def equal_shares(arrived: dict[QueuedRequest, int], sizes: dict[QueuedRequest, int]) -> dict[QueuedRequest, float]:
    """When each would be done if all that are there had the same of every token; times are tokens served so far."""
    left, done, now = dict[QueuedRequest, float](), dict[QueuedRequest, float](), 0.0
    coming = sorted(arrived, key=lambda job: arrived[job])
    while left or coming:
        if not left:
            now = max(now, arrived[coming[0]])
        left |= {job: float(sizes[job]) for job in coming if arrived[job] <= now}
        coming = [job for job in coming if arrived[job] > now]
        step = min(left.values())
        if coming:
            step = min(step, (arrived[coming[0]] - now) / len(left))
        now += step * len(left)
        left = {job: tokens - step for job, tokens in left.items()}
        done |= {job: now for job, tokens in left.items() if tokens <= 1e-6}
        left = {job: tokens for job, tokens in left.items() if tokens > 1e-6}
    return done


@pytest.mark.parametrize("others", ["stay", "leave", "ask for the same"])
def test_a_long_request_is_done_although_short_ones_keep_coming(others: str) -> None:
    waiting = queue()

    def come() -> list[QueuedRequest]:
        texts = [TokenizedText(b"%d" % next(NUMBERS), BATCH) for _ in range(5)]
        return [join(waiting, texts) for _ in range(2 if others == "ask for the same" else 1)]

    short = list[QueuedRequest]()

    def call() -> None:
        while len(short) < 8:
            short.extend(come())
        for text in waiting.next_batch(0):
            waiting.finish(text)
            text.deliver(np.zeros(1, np.float32))
        if others == "leave":
            waiting.cancel(short.pop())
        short[:] = [job for job in short if job.left]

    for _ in range(500):
        call()
    long, calls = enqueue(waiting, *[BATCH] * 50), 0
    while long.left:
        call()
        calls += 1
        assert calls <= 3 * 50 * 9  # three times as many as with equal shares: the short ones arrive faster


def test_requests_of_a_key_are_done_one_after_another() -> None:
    waiting = queue()
    jobs = [enqueue(waiting, *[BATCH] * 5) for _ in range(4)]
    assert [owners(waiting.next_batch(0)) for _ in range(20)] == [[job] for job in jobs for _ in range(5)]


def test_a_short_request_passes_a_long_one_that_has_had_much_more_than_its_length() -> None:
    waiting = queue()
    enqueue(waiting, *[BATCH] * 50)
    for _ in range(10):
        waiting.next_batch(0)
    short = enqueue(waiting, BATCH)
    assert owners(waiting.next_batch(0)) == [short]


def test_a_long_text_is_not_skipped_forever() -> None:
    waiting = queue()
    enqueue(waiting, 60)
    long = enqueue(waiting, BATCH)
    calls = []
    for _ in range(5):
        enqueue(waiting, 60)  # shorter ones keep coming
        calls.append(long in owners(waiting.next_batch(0)))
    assert True in calls


def test_new_keys_do_not_overtake_one_that_was_served_before() -> None:
    waiting = queue()
    old = enqueue(waiting, *[BATCH] * 10, client="old")
    had = 0
    for number in range(20):
        enqueue(waiting, BATCH, client=f"new {number}")
        had += tokens(waiting.next_batch(0), old)
    assert had >= 4 * BATCH  # one in each round, while more and more wait


def test_a_request_marked_first_passes_those_of_its_own_key_and_takes_nothing_from_another() -> None:
    waiting = queue()
    of = {client: [enqueue(waiting, 5, client=client) for _ in range(20)] for client in "ab"}
    urgent = QueuedRequest(1, asyncio.Future(loop=CLOSED_LOOP), Caller(client="a", first=True))
    waiting.enqueue(urgent, [TokenizedText(b"urgent", SMALL)])
    calls = [waiting.next_batch(0) for _ in range(6)]
    assert urgent in owners(calls[0])
    had = {client: sum(tokens(call, *jobs) for call in calls) for client, jobs in of.items()}
    assert abs(had["a"] + SMALL - had["b"]) <= SMALL
