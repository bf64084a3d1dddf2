"""A line never makes a call that llama-server would get wrong, loses nothing, and starves nobody."""

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.embedding import Ids, Matrix
from proxy.errors import BackendError, BackendUnavailable, BadVector, Draining, Overloaded
from proxy.scheduler import Job, Lane, Line

SLOTS, BATCH = 4, 100


def job(*lengths: int) -> Job:
    return Job([[0] * length for length in lengths], asyncio.Future(loop=_LOOP))


_LOOP = asyncio.new_event_loop()
_LOOP.close()  # only to make futures that nobody awaits


def line(max_items: int = 1000) -> Line:
    return Line(slots=SLOTS, batch_tokens=BATCH, max_items=max_items)


@given(st.lists(st.lists(st.integers(1, BATCH), min_size=1, max_size=12), min_size=1, max_size=8))
def test_every_text_goes_out_once_in_calls_that_fit(requests: list[list[int]]) -> None:
    waiting = line()
    jobs = [job(*lengths) for lengths in requests]
    for one in jobs:
        waiting.admit(one)
    sent = []
    while pieces := waiting.take():
        assert len(pieces) <= SLOTS
        assert sum(len(one.inputs[index]) for one, index in pieces) <= BATCH
        sent += [(id(one), index) for one, index in pieces]
    assert sorted(sent) == sorted((id(one), index) for one in jobs for index in range(len(one.inputs)))
    assert (waiting.items, waiting.tokens) == (0, 0)


def test_a_query_goes_out_in_the_next_call_after_a_piece_of_a_bulk_request() -> None:
    waiting = line()
    bulk, query = job(*[20] * 50), job(5)
    waiting.admit(bulk)
    waiting.take()
    waiting.admit(query)
    first, second = waiting.take(), waiting.take()
    assert query in [one for one, _ in first + second]


def test_a_long_text_is_not_passed_over_for_ever() -> None:
    waiting = line()
    long = job(BATCH)
    waiting.admit(job(60))
    waiting.admit(long)
    calls = []
    for _ in range(4):
        waiting.admit(job(60))  # short ones keep coming
        calls.append([one for one, _ in waiting.take()])
    assert [long in call for call in calls].index(True) <= 1


def test_a_full_line_refuses_but_takes_any_one_job_when_empty() -> None:
    waiting = line(max_items=3)
    assert waiting.admit(job(1, 1, 1, 1))
    assert not waiting.admit(job(1))


def test_a_dropped_job_leaves_nothing_behind() -> None:
    waiting = line()
    gone, stays = job(10, 10, 10, 10, 10, 10), job(7)
    waiting.admit(gone)
    waiting.take()
    waiting.admit(stays)
    waiting.drop(gone)
    waiting.drop(gone)
    assert (waiting.items, waiting.tokens) == (1, 7)
    assert waiting.take() == [(stays, 0)]


class Engine:
    """A scripted backend: the vector of [a, b, …] is [a, count]; it fails or gives NaN where told to."""

    def __init__(self, *, guilty: int = -1, error: BackendError | None = None, nan: int = -1) -> None:
        self.calls: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self._guilty, self._error, self._nan = guilty, error, nan

    async def embed(self, inputs: Sequence[Ids]) -> Matrix:
        self.calls.append([ids[0] for ids in inputs])
        await self.gate.wait()
        if self._error and any(ids[0] == self._guilty for ids in inputs):
            raise self._error
        return np.array([[np.nan if ids[0] == self._nan else ids[0], len(ids)] for ids in inputs], dtype=np.float32)


class Serving:
    """A lane that is being served for as long as the block lasts."""

    def __init__(self, engine: Engine, *, max_items: int = 1000) -> None:
        self.lane = Lane(engine, line(max_items), dimensions=2, call_timeout_s=0.2)

    async def __aenter__(self) -> Lane:
        self._task = asyncio.create_task(self.lane.serve())
        return self.lane

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def test_rows_come_back_in_the_order_of_the_inputs() -> None:
    async with Serving(Engine()) as lane:
        vectors = await lane.embed([[n] * (n % 30 + 1) for n in range(40)])
    assert vectors[:, 0].tolist() == list(range(40))


async def test_requests_that_wait_together_share_a_call() -> None:
    engine = Engine()
    async with Serving(engine) as lane:
        await asyncio.gather(*(lane.embed([[n]]) for n in range(4)))
    assert engine.calls == [[0, 1, 2, 3]]


async def test_only_the_guilty_request_of_a_shared_call_fails() -> None:
    engine = Engine(guilty=2, error=BackendError("backend answered 500"))
    async with Serving(engine) as lane:
        answers = await asyncio.gather(*(lane.embed([[n]]) for n in range(4)), return_exceptions=True)
    assert [isinstance(answer, BackendError) for answer in answers] == [False, False, True, False]


async def test_a_backend_that_is_down_fails_all_at_once_without_more_tries() -> None:
    engine = Engine(guilty=0, error=BackendUnavailable("down"))
    async with Serving(engine) as lane:
        answers = await asyncio.gather(*(lane.embed([[n]]) for n in range(4)), return_exceptions=True)
    assert all(isinstance(answer, BackendUnavailable) for answer in answers)
    assert len(engine.calls) == 1


async def test_a_vector_that_is_not_finite_is_an_error_that_names_the_index() -> None:
    async with Serving(Engine(nan=7)) as lane:
        good, bad = await asyncio.gather(lane.embed([[1]]), lane.embed([[6], [7]]), return_exceptions=True)
    assert isinstance(good, np.ndarray)
    assert isinstance(bad, BadVector)
    assert "input 1" in bad.message


async def test_a_backend_that_never_answers_holds_the_line_only_for_a_while() -> None:
    engine = Engine()
    engine.gate.clear()
    lane = Lane(engine, line(), dimensions=2, call_timeout_s=0.05)
    serving = asyncio.create_task(lane.serve())
    with pytest.raises(BackendUnavailable, match="did not answer"):
        await lane.embed([[1]])
    assert isinstance(await serving, BackendUnavailable)


async def test_vectors_of_another_size_are_no_vectors() -> None:
    lane = Lane(Engine(), line(), dimensions=3, call_timeout_s=1)
    serving = asyncio.create_task(lane.serve())
    with pytest.raises(BadVector, match="gave 2 dimensions, the family has 3"):
        await lane.embed([[1]])
    assert isinstance(await serving, BadVector)


async def test_a_full_line_says_when_to_come_back() -> None:
    engine = Engine()
    engine.gate.clear()
    async with Serving(engine, max_items=2) as lane:
        first = asyncio.ensure_future(lane.embed([[1]]))
        while not engine.calls:
            await asyncio.sleep(0)
        second = asyncio.ensure_future(lane.embed([[2], [3]]))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded) as full:
            await lane.embed([[4]])
        assert full.value.retry_after_s is not None
        engine.gate.set()
        await asyncio.gather(first, second)


async def test_a_caller_that_leaves_takes_its_texts_out_of_the_line() -> None:
    engine = Engine()
    engine.gate.clear()
    async with Serving(engine) as lane:
        first = asyncio.ensure_future(lane.embed([[1]]))
        while not engine.calls:
            await asyncio.sleep(0)
        gone = asyncio.ensure_future(lane.embed([[2]] * 9))
        await asyncio.sleep(0)
        assert lane.waiting == 9
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        assert lane.waiting == 0
        engine.gate.set()
        await first
    assert engine.calls == [[1]]


async def test_draining_sends_home_who_waits_and_finishes_what_runs() -> None:
    engine = Engine()
    engine.gate.clear()
    async with Serving(engine) as lane:
        running = asyncio.ensure_future(lane.embed([[1]]))
        while not engine.calls:
            await asyncio.sleep(0)
        waiting = asyncio.ensure_future(lane.embed([[2]]))
        await asyncio.sleep(0)
        lane.drain()
        engine.gate.set()
        assert (await running).tolist() == [[1, 1]]
        with pytest.raises(Draining):
            await waiting
        with pytest.raises(Draining):
            await lane.embed([[3]])
