"""A lane loses nothing: whatever its backend does, each request gets its vectors or its own error."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import numpy as np
import orjson
import pytest

from proxy.embedding import Ids, Matrix
from proxy.errors import (
    BackendError,
    BackendLost,
    BackendUnavailable,
    BadVector,
    DeadlineExceeded,
    Draining,
    Overloaded,
    PoisonedInput,
)
from proxy.lane import Lane, Turnstile
from proxy.line import Line
from proxy.work import ANYBODY, Caller

SLOTS, BATCH = 4, 100


class Engine:
    """A scripted backend: the vector of [a, b, …] is [a, count]; the guilty text fails, or is NaN, `times` times."""

    name = "scripted"

    def __init__(self, *, guilty: int = -1, error: BackendError | None = None, times: int = 1000) -> None:
        self.calls: list[list[int]] = []
        self.log: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self._guilty, self._error, self._times = guilty, error, times

    async def send(self, texts: Sequence[bytes]) -> bytes:
        inputs = [orjson.loads(text) for text in texts]
        self.calls.append([ids[0] for ids in inputs])
        self.log.append(f"send {len(self.calls)}")
        await self.gate.wait()
        rows = [[float(ids[0]), len(ids)] for ids in inputs]
        if self._times and any(ids[0] == self._guilty for ids in inputs):
            self._times -= 1
            if self._error:
                raise self._error
            rows = [[np.nan if row[0] == self._guilty else row[0], row[1]] for row in rows]
        return np.array(rows, dtype=np.float32).tobytes()

    def read(self, answer: bytes, count: int) -> Matrix:
        self.log.append("read")
        return np.frombuffer(answer, dtype=np.float32).reshape(count, -1)


@asynccontextmanager
async def serving(
    engine: Engine, *, max_tokens: int = 10**6, dimensions: int = 2, doubts: list[BackendError | None] | None = None
) -> AsyncIterator[Lane]:
    """A lane that is being served for as long as the block lasts; after each doubt it goes on, as a model does."""
    line = Line(slots=SLOTS, batch_tokens=BATCH, max_tokens=max_tokens)
    lane = Lane(engine, line, Turnstile(), dimensions=dimensions, call_timeout_s=0.1)

    async def serve() -> None:
        while True:
            doubt = await lane.serve()
            if doubts is not None:
                doubts.append(doubt)

    async with asyncio.TaskGroup() as tasks:
        working = tasks.create_task(serve())
        yield lane
        working.cancel()


async def firsts(lane: Lane, *inputs: Ids, caller: Caller = ANYBODY) -> list[float]:
    """The first component of each vector."""
    return [float(row[0]) for row in (await lane.embed(inputs, caller)).rows]


async def called(engine: Engine, times: int = 1) -> None:
    async with asyncio.timeout(5):
        while len(engine.calls) < times:
            await asyncio.sleep(0)


async def test_rows_come_back_in_the_order_of_the_inputs() -> None:
    async with serving(Engine()) as lane:
        assert await firsts(lane, *([n] * (n % 30 + 1) for n in range(40))) == list(range(40))


async def test_requests_that_wait_together_share_a_call() -> None:
    engine = Engine()
    async with serving(engine) as lane:
        await asyncio.gather(*(lane.embed([[n]]) for n in range(4)))
    assert engine.calls == [[0, 1, 2, 3]]


async def test_the_next_call_is_on_its_way_before_an_answer_is_read() -> None:
    engine = Engine()
    async with serving(engine) as lane:
        await firsts(lane, *([n] for n in range(3 * SLOTS)))
    assert engine.log == ["send 1", "send 2", "read", "send 3", "read", "read"]


async def test_identical_texts_are_computed_once_also_while_one_is_in_flight() -> None:
    engine = Engine()
    engine.gate.clear()
    async with serving(engine) as lane:
        first = asyncio.ensure_future(firsts(lane, [7], [8], [7]))
        await called(engine)
        second, third = (asyncio.ensure_future(firsts(lane, [8], [9])) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        third.cancel()
        engine.gate.set()
        assert await second == [8, 9]
    assert engine.calls == [[7, 8], [9]]


async def test_only_the_guilty_request_of_a_shared_call_fails() -> None:
    engine = Engine(guilty=2, error=BackendError("backend answered 500"))
    async with serving(engine) as lane:
        answers = await asyncio.gather(*(lane.embed([[n]]) for n in range(4)), return_exceptions=True)
    assert [isinstance(answer, BackendError) for answer in answers] == [False, False, True, False]


@pytest.mark.parametrize("error", [BackendLost("lost"), None], ids=["ends the engine", "NaN"])
async def test_a_text_that_goes_wrong_twice_is_poison_and_nobody_else_notices(error: BackendError | None) -> None:
    engine, doubts = Engine(guilty=2, error=error), list[BackendError | None]()
    async with serving(engine, doubts=doubts) as lane:
        answers = await asyncio.gather(*(firsts(lane, [n], [n + 10]) for n in range(4)), return_exceptions=True)
        poisoned = answers.pop(2)
        assert answers == [[0, 10], [1, 11], [3, 13]]
        assert isinstance(poisoned, PoisonedInput)
        assert "input.0" in poisoned.message
        assert (len(doubts), engine.calls.count([2])) == (2, 1)
        before = len(engine.calls)
        with pytest.raises(PoisonedInput, match=r"input\.1"):
            await lane.embed([[5], [2]])
        outcome = await lane.embed([[2], [5]], Caller(partial=True))
        assert (list(outcome.failed), outcome.served().tolist()) == ([0], [[5, 1]])
        assert engine.calls[before:] == [[5]]


async def test_a_text_that_goes_wrong_only_once_is_served() -> None:
    async with serving(Engine(guilty=2, error=BackendLost("killed by somebody"), times=1)) as lane:
        assert await firsts(lane, *([n] for n in range(6))) == list(range(6))


async def test_a_call_that_was_not_taken_is_made_again_and_makes_nobody_suspect() -> None:
    engine = Engine(guilty=0, error=BackendUnavailable("down"), times=5)
    async with serving(engine) as lane:
        assert await firsts(lane, *([n] for n in range(4))) == [0, 1, 2, 3]
    assert engine.calls == [[0, 1, 2, 3]] * 6


async def test_a_backend_that_never_answers_holds_the_line_only_for_a_while() -> None:
    engine, doubts = Engine(), list[BackendError | None]()
    engine.gate.clear()
    async with serving(engine, doubts=doubts) as lane:
        waiting = asyncio.ensure_future(firsts(lane, [1]))
        while not doubts:
            await asyncio.sleep(0.01)
        assert isinstance(doubts[0], BackendLost)
        engine.gate.set()
        assert await waiting == [1]


async def test_vectors_of_another_size_are_no_vectors() -> None:
    async with serving(Engine(), dimensions=3) as lane:
        with pytest.raises(BadVector, match="gave 2 dimensions, the family has 3"):
            await lane.embed([[1]])


async def test_a_full_line_says_how_much_waits_and_when_to_come_back() -> None:
    engine = Engine()
    async with serving(engine, max_tokens=60) as lane:
        await lane.embed([[1] * 50])
        engine.gate.clear()
        first = asyncio.ensure_future(lane.embed([[1]]))
        await called(engine, 2)
        second = asyncio.ensure_future(lane.embed([[2] * 20, [3] * 20]))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="40 tokens") as full:
            await lane.embed([[4] * 30])
        lane.pace.tokens, lane.pace.seconds = 10.0, 2.0
        assert lane.overloaded().retry_after_s == 1 + 40 // 5
        assert full.value.queue_tokens == 40
        engine.gate.set()
        await asyncio.gather(first, second)


async def test_a_caller_that_leaves_takes_its_texts_out_of_the_line() -> None:
    engine = Engine()
    engine.gate.clear()
    async with serving(engine) as lane:
        first = asyncio.ensure_future(lane.embed([[1]]))
        await called(engine)
        gone = asyncio.ensure_future(lane.embed([[n] for n in range(9)]))
        await asyncio.sleep(0)
        assert lane.line.texts == 8
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        assert lane.line.texts == 0
        engine.gate.set()
        await first
    assert engine.calls == [[1]]


async def test_what_cannot_be_done_in_time_is_not_begun() -> None:
    engine = Engine()
    async with serving(engine) as lane:
        with pytest.raises(DeadlineExceeded):
            await lane.embed([[1]], Caller(deadline=asyncio.get_running_loop().time()))
    assert engine.calls == []


async def test_draining_sends_home_who_waits_and_finishes_what_runs() -> None:
    engine = Engine()
    engine.gate.clear()
    async with serving(engine) as lane:
        running = asyncio.ensure_future(firsts(lane, [1]))
        await called(engine)
        waiting = asyncio.ensure_future(lane.embed([[2]]))
        await asyncio.sleep(0)
        lane.close(lambda: Draining("the server is stopping"))
        engine.gate.set()
        assert await running == [1]
        with pytest.raises(Draining):
            await waiting
        with pytest.raises(Draining):
            await lane.embed([[3]])


async def test_backends_that_share_the_cores_take_turns() -> None:
    shared, engines = Turnstile(asyncio.Lock()), [Engine(), Engine()]
    for engine in engines:
        engine.gate.clear()
    lanes = [
        Lane(engine, Line(slots=1, batch_tokens=BATCH, max_tokens=99), shared, dimensions=2, call_timeout_s=5)
        for engine in engines
    ]
    async with asyncio.TaskGroup() as tasks:
        working = [tasks.create_task(lane.serve()) for lane in lanes]
        asked = [tasks.create_task(lane.embed([[n] for n in range(5)])) for lane in lanes]
        for turn in range(10):
            await called(engines[turn % 2], turn // 2 + 1)
            assert [lane.in_flight for lane in lanes] == [1 - turn % 2, turn % 2]
            engines[turn % 2].gate.set()
            while lanes[turn % 2].in_flight:
                await asyncio.sleep(0)
            engines[turn % 2].gate.clear()
        await asyncio.gather(*asked)
        for task in working:
            task.cancel()
