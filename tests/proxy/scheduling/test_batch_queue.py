"""The batch queue: batches that llama-server computes right, nothing lost, no request starved."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from proxy.errors import DeadlineExceeded
from proxy.scheduling.entries import QueuedRequest, QueuedText, TokenizedText
from tests.support.engines.queued_requests import (
    BATCH,
    CLOSED_LOOP,
    LENGTHS,
    NUMBERS,
    SLOTS,
    enqueue,
    join,
    owners,
    queue,
    tokens,
)


@given(st.lists(st.tuples(st.integers(1, BATCH), st.booleans()), min_size=1, max_size=12), st.booleans())
def test_an_exclusive_text_has_its_batch_to_itself(texts: list[tuple[int, bool]], interactive_lately: bool) -> None:
    waiting = queue()
    for length, exclusive in texts:
        join(waiting, [TokenizedText(b"%d" % next(NUMBERS), length, exclusive)])
    taken = 0
    while call := waiting.next_batch(0.0, interactive_lately=interactive_lately):
        assert len(call) == 1 or not any(text.exclusive for text in call)
        taken += len(call)
        for text in call:
            waiting.finish(text)
    assert taken == len(texts)


class Queues(RuleBasedStateMachine):
    """Requests arrive, are cancelled, and their batches fail."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = queue()
        self.jobs: list[QueuedRequest] = []
        self.retried: set[bytes] = set()
        self.now = 0.0

    @rule(lengths=LENGTHS, client=st.sampled_from("abc"), same=st.booleans())
    def arrives(self, lengths: list[int], client: str, same: bool) -> None:
        names = [b"%d" % length if same else b"n%d" % next(NUMBERS) for length in lengths]
        asked = [TokenizedText(name, length) for name, length in zip(names, lengths, strict=True)]
        self.jobs.append(join(self.queue, asked, client, self.now))

    @rule(number=st.integers(0, 99))
    def leaves(self, number: int) -> None:
        if self.jobs:
            job = self.jobs.pop(number % len(self.jobs))
            job.done.cancel()
            self.queue.cancel(job)

    @rule(interactive_lately=st.booleans(), goes_wrong=st.booleans())
    def is_called(self, interactive_lately: bool, goes_wrong: bool) -> None:
        self.now += 1
        wanted = any(job.left for job in self.jobs)
        call = self.queue.next_batch(self.now, interactive_lately=interactive_lately)
        assert bool(call) is wanted
        assert len(call) <= SLOTS
        assert tokens(call) <= BATCH
        again = [text for text in call if goes_wrong and text.ids not in self.retried]
        self.retried |= {text.ids for text in again}
        self.queue.requeue([[text] for text in again])
        for text in call:
            if text not in again:
                self.is_answered(text)

    def is_answered(self, text: QueuedText) -> None:
        self.queue.finish(text)
        for job, _ in text.waiters:
            job.left -= 1
            if not job.left:
                job.done.set_result(None)
                self.jobs.remove(job)

    @invariant()
    def the_count_is_what_waits(self) -> None:
        texts = {text: None for job in self.jobs for text in job.texts if not text.taken}
        retries = sum(map(len, self.queue.retries()))
        assert self.queue.texts == len(texts) + retries

    @precondition(lambda self: not self.jobs)
    @invariant()
    def nothing_is_left_behind(self) -> None:
        while self.queue.next_batch(self.now):
            raise AssertionError("a text without a waiting request was sent")
        assert (self.queue.texts, self.queue.tokens, self.queue.waiting()) == (0, 0, [])


TestQueues = Queues.TestCase
TestQueues.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)


@given(st.lists(LENGTHS, min_size=1, max_size=6), st.booleans())
def test_every_text_goes_out_once_and_each_job_in_its_order(
    requests: list[list[int]], interactive_lately: bool
) -> None:
    waiting = queue()
    jobs = [enqueue(waiting, *lengths) for lengths in requests]
    sent: dict[QueuedRequest, list[int]] = {job: [] for job in jobs}
    while call := waiting.next_batch(0, interactive_lately=interactive_lately):
        for text in call:
            ((job, index),) = text.waiters
            sent[job].append(index)
    assert [sent[job] for job in jobs] == [list(range(job.size)) for job in jobs]


def test_a_full_queue_refuses_but_takes_any_one_request_when_empty() -> None:
    waiting = queue(max_tokens=30)
    first = enqueue(waiting, 20, 20, 20, 20)
    job = QueuedRequest(1, asyncio.Future(loop=CLOSED_LOOP))
    assert waiting.enqueue(job, [TokenizedText(b"x", 1)]) is None
    assert waiting.enqueue(job, [TokenizedText(first.texts[0].ids, 20)]) == 1  # what is computed anyway costs nothing


def test_identical_texts_are_one_entry_sent_with_the_first_request() -> None:
    waiting = queue()
    bulk = [TokenizedText(b"b%d" % number, 50) for number in range(20)]
    first = join(waiting, [*bulk, bulk[0]])
    assert waiting.texts == 20
    second = join(waiting, [bulk[19]])
    assert waiting.texts == 20
    waiting.cancel(second)
    assert waiting.texts == 20
    second = join(waiting, [TokenizedText(b"b19", 20), TokenizedText(b"q", 5)])
    assert [job for text in waiting.next_batch(0) for job, _ in text.waiters].count(second) == 2
    sent = 2
    while call := waiting.next_batch(0):
        sent += len(call)
    assert sent == 21
    assert first.head() is None


def test_a_cancelled_request_takes_only_its_own_texts_along() -> None:
    waiting = queue()
    shared = TokenizedText(b"shared", 50)
    gone, stays = join(waiting, [TokenizedText(b"own", 60), shared]), join(waiting, [shared])
    waiting.cancel(gone)
    waiting.cancel(gone)
    assert (waiting.texts, waiting.tokens) == (1, 50)
    assert [owners([text]) for text in waiting.next_batch(0)] == [[stays]]


def test_a_request_that_cannot_meet_its_deadline_is_not_started() -> None:
    waiting = queue()
    slow = enqueue(waiting, *[50] * 4, deadline=10.0)
    fast = enqueue(waiting, *[50] * 4, deadline=30.0)
    assert set(owners(waiting.next_batch(0.0, fastest=10.0))) == {fast}
    assert isinstance(slow.done.exception(), DeadlineExceeded)
    assert not fast.done.done()


def test_retries_are_sent_between_the_batches_of_others() -> None:
    waiting = queue()
    enqueue(waiting, *[30] * 2)
    bad = waiting.next_batch(0)
    waiting.requeue([[text] for text in bad])
    others = enqueue(waiting, *[50] * 8)
    calls = [waiting.next_batch(0) for _ in range(4)]
    assert sorted(len(call) for call in calls) == [1, 1, 2, 2]
    assert [others in owners(call) for call in calls] in ([True, False] * 2, [False, True] * 2)
