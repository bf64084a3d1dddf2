"""A dispatcher sends one batch after another, shares them, rejects what is too much, and drops cancelled requests."""

import asyncio
import tracemalloc

import numpy as np
import pytest

from proxy.errors import (
    DeadlineExceeded,
    Draining,
    Overloaded,
)
from proxy.scheduling.batch_queue import BatchQueue
from proxy.scheduling.dispatcher import Dispatcher, SharedSlot
from proxy.scheduling.entries import REPEATED_ROWS, Caller, QueuedRequest, QueuedText
from tests.support.engines.scripted import BATCH, SLOTS, Engine, called, firsts, serving


async def test_rows_come_back_in_the_order_of_the_inputs() -> None:
    async with serving(Engine()) as dispatcher:
        assert await firsts(dispatcher, *([n] * (n % 30 + 1) for n in range(40))) == list(range(40))


async def test_requests_that_wait_together_share_a_batch() -> None:
    engine = Engine()
    async with serving(engine) as dispatcher:
        await asyncio.gather(*(dispatcher.embed([[n]]) for n in range(4)))
    assert engine.calls == [[0, 1, 2, 3]]


async def test_a_text_that_waits_takes_little_memory() -> None:
    engine = Engine()
    engine.gate.clear()
    async with serving(engine) as dispatcher:
        inputs = [np.array([n, 1, 2, 3], dtype=np.int32) for n in range(2000)]
        tracemalloc.start()
        try:
            waiting = asyncio.create_task(dispatcher.embed(inputs))
            await called(engine)
            assert tracemalloc.get_traced_memory()[0] < 1000 * len(inputs)
        finally:
            tracemalloc.stop()
            waiting.cancel()


async def test_the_next_batch_is_sent_before_a_result_is_read() -> None:
    engine = Engine()
    async with serving(engine) as dispatcher:
        await firsts(dispatcher, *([n] for n in range(3 * SLOTS)))
    assert engine.log == ["send 1", "send 2", "read", "send 3", "read", "read"]


async def test_identical_texts_are_computed_once_also_while_one_is_in_flight() -> None:
    engine = Engine()
    engine.gate.clear()
    async with serving(engine) as dispatcher:
        first = asyncio.ensure_future(firsts(dispatcher, [7], [8], [7]))
        await called(engine)
        second, third = (asyncio.ensure_future(firsts(dispatcher, [8], [9])) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        third.cancel()
        engine.gate.set()
        assert await second == [8, 9]
    assert engine.calls == [[7, 8], [9]]


async def test_a_text_that_a_request_has_many_times_has_all_its_rows() -> None:
    inputs = [[5] if n % 10 else [n] for n in range(3 * REPEATED_ROWS)]
    async with serving(Engine()) as dispatcher:
        once, again = await asyncio.gather(dispatcher.embed(inputs), dispatcher.embed(inputs))
    assert [row[0] for row in once.rows] == [ids[0] for ids in inputs]
    assert np.array_equal(once.rows, again.rows)


async def test_the_rows_of_a_repeated_text_are_not_written_in_the_loop() -> None:
    """Requests for one text are all done at once: their rows kept the loop for seconds."""
    request, text = QueuedRequest(REPEATED_ROWS, asyncio.get_running_loop().create_future()), QueuedText(b"[5]", 1)
    text.waiters = [(request, index) for index in range(REPEATED_ROWS)]
    text.deliver(np.array([5, 1], dtype=np.float32))
    assert (request.done.done(), len(request.rows)) == (True, 0)
    request.put_repeated()
    assert request.rows.tolist() == [[5, 1]] * REPEATED_ROWS


async def test_a_full_queue_says_how_much_waits_and_when_to_come_back() -> None:
    engine = Engine()
    async with serving(engine, max_tokens=60) as dispatcher:
        await dispatcher.embed([[1] * 50])
        engine.gate.clear()
        first = asyncio.ensure_future(dispatcher.embed([[1]]))
        await called(engine, 2)
        second = asyncio.ensure_future(dispatcher.embed([[2] * 20, [3] * 20]))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="40 tokens") as full:
            await dispatcher.embed([[4] * 30])
        dispatcher.throughput.tokens, dispatcher.throughput.turns = 10.0, 2.0
        assert dispatcher.overloaded(40).retry_after_s == (30 + 40 + 40 - 60) / 5, "behind the one that was just told"
        assert full.value.queue_tokens == 40
        engine.gate.set()
        await asyncio.gather(first, second)


async def test_a_cancelled_request_takes_its_texts_out_of_the_queue() -> None:
    engine = Engine()
    engine.gate.clear()
    async with serving(engine) as dispatcher:
        first = asyncio.ensure_future(dispatcher.embed([[1]]))
        await called(engine)
        gone = asyncio.ensure_future(dispatcher.embed([[n] for n in range(9)]))
        await asyncio.sleep(0)
        assert dispatcher.queue.texts == 8
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        assert dispatcher.queue.texts == 0
        engine.gate.set()
        await first
    assert engine.calls == [[1]]


async def test_what_cannot_be_done_in_time_is_not_begun() -> None:
    engine = Engine()
    async with serving(engine) as dispatcher:
        with pytest.raises(DeadlineExceeded):
            await dispatcher.embed([[1]], Caller(deadline=asyncio.get_running_loop().time()))
    assert engine.calls == []


async def test_draining_fails_waiting_requests_and_completes_the_batch_in_flight() -> None:
    engine = Engine()
    engine.gate.clear()
    async with serving(engine) as dispatcher:
        running = asyncio.ensure_future(firsts(dispatcher, [1]))
        await called(engine)
        waiting = asyncio.ensure_future(dispatcher.embed([[2]]))
        await asyncio.sleep(0)
        dispatcher.close(lambda: Draining("the server is stopping"))
        engine.gate.set()
        assert await running == [1]
        with pytest.raises(Draining):
            await waiting
        with pytest.raises(Draining):
            await dispatcher.embed([[3]])


async def test_backends_that_share_the_cores_take_turns() -> None:
    shared, engines = SharedSlot(asyncio.Lock()), [Engine(), Engine()]
    for engine in engines:
        engine.gate.clear()
    lanes = [
        Dispatcher(
            engine, BatchQueue(slots=1, batch_tokens=BATCH, max_tokens=99), shared, dimensions=2, batch_timeout_s=5
        )
        for engine in engines
    ]
    async with asyncio.TaskGroup() as tasks:
        working = [tasks.create_task(dispatcher.serve()) for dispatcher in lanes]
        asked = [tasks.create_task(dispatcher.embed([[n] for n in range(5)])) for dispatcher in lanes]
        for turn in range(10):
            await called(engines[turn % 2], turn // 2 + 1)
            assert [dispatcher.in_flight for dispatcher in lanes] == [1 - turn % 2, turn % 2]
            engines[turn % 2].gate.set()
            while lanes[turn % 2].in_flight:
                await asyncio.sleep(0)
            engines[turn % 2].gate.clear()
        await asyncio.gather(*asked)
        for task in working:
            task.cancel()
