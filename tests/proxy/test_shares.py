"""Everybody has a share: queries and bulk, keys, and the requests of a key."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.line import AGEING_S, BULK_SHARE
from proxy.work import Job
from tests.proxy.in_line import BATCH, LENGTHS, SLOTS, SMALL, admit, line, owners, tokens


@given(st.lists(st.integers(1, BATCH), min_size=20, max_size=60), st.integers(0, 10), st.integers(1, SMALL))
def test_a_query_goes_out_in_one_of_the_next_two_calls_whatever_bulk_waits(
    bulk: list[int], calls: int, length: int
) -> None:
    waiting = line()
    admit(waiting, *bulk)
    for _ in range(calls):
        waiting.take(0, hurried=True)
    query = admit(waiting, length)
    assert query in owners([*waiting.take(0), *waiting.take(0)])


@settings(max_examples=25)
@given(st.integers(1, SMALL), st.integers(1, SMALL))
def test_bulk_has_its_share_however_many_queries_come(query: int, length: int) -> None:
    waiting = line()
    bulk = admit(waiting, *[length] * 500)
    had = total = calls = 0
    for _ in range(100):
        while waiting.texts - len([t for t in bulk.texts if not t.taken]) < SLOTS:
            admit(waiting, query)
        call = waiting.take(0, hurried=True)
        calls += 1
        had, total = had + tokens(call, bulk), total + tokens(call)
    slots_are_the_limit = (SLOTS // 2) * length  # half of the texts of a call are all that it can be given
    assert had >= min(BULK_SHARE * total, calls * slots_are_the_limit / 2) - 2 * BATCH
    assert total - had >= 0.4 * total - 2 * BATCH or query * SLOTS < length


def test_bulk_that_waited_long_has_more() -> None:
    def share(now: float) -> float:
        waiting = line()
        bulk = admit(waiting, *[20] * 400)
        had = total = 0
        for _ in range(40):
            admit(waiting, 20)
            admit(waiting, 20)
            admit(waiting, 20)
            admit(waiting, 20)
            bulk.since = 0.0
            call = waiting.take(now, hurried=True)
            had, total = had + tokens(call, bulk), total + tokens(call)
        return had / total

    assert share(0.0) == pytest.approx(0.25, abs=0.05)
    assert share(10 * AGEING_S) == pytest.approx(0.5, abs=0.05)


def test_calls_with_bulk_are_small_only_while_somebody_is_in_a_hurry() -> None:
    waiting = line()
    admit(waiting, *[10] * 50)
    assert len(waiting.take(0, hurried=False)) == SLOTS
    assert len(waiting.take(0, hurried=True)) == SLOTS // 2


@given(
    st.lists(st.integers(1, BATCH), min_size=40, max_size=40),
    st.lists(st.integers(1, BATCH), min_size=40, max_size=40),
    st.integers(1, 5),
)
def test_two_keys_get_the_same_however_many_requests_each_has(first: list[int], second: list[int], many: int) -> None:
    waiting = line()
    ones = [admit(waiting, *first, client="one") for _ in range(many)]
    other = admit(waiting, *second, client="other")
    had = {True: 0, False: 0}
    while True:
        call = waiting.take(0)
        for text in call:
            had[text.waiters[0][0] in ones] += text.tokens
        if all(text.taken for text in other.texts) or all(text.taken for job in ones for text in job.texts):
            break
        assert abs(had[True] - had[False]) <= 3 * BATCH


@given(st.lists(LENGTHS, min_size=2, max_size=10))
def test_each_job_of_a_key_gets_something_before_long(requests: list[list[int]]) -> None:
    waiting = line()
    jobs = [admit(waiting, *lengths, *[BATCH] * 5) for lengths in requests]  # all of them bulk
    seen: set[Job] = set()
    for _ in range(2 * len(jobs)):
        admit(waiting, BATCH)  # short jobs keep coming
        seen |= set(owners(waiting.take(0)))
    assert set(jobs) <= seen


def test_a_long_text_is_not_passed_over_for_ever() -> None:
    waiting = line()
    admit(waiting, 60)
    long = admit(waiting, BATCH)
    calls = []
    for _ in range(5):
        admit(waiting, 60)  # shorter ones keep coming
        calls.append(long in owners(waiting.take(0)))
    assert True in calls


@pytest.mark.parametrize("client", ["same", "another"])
def test_who_comes_again_and_again_does_not_overtake_who_was_served_before(client: str) -> None:
    waiting = line()
    old = admit(waiting, *[BATCH] * 10, client="same")
    had = 0
    for number in range(20):
        admit(waiting, BATCH, client=f"{client} {number}" if client == "another" else client)
        had += tokens(waiting.take(0), old)
    assert had >= 4 * BATCH  # one in each round, while more and more wait
