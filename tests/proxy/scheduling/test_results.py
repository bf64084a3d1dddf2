"""A failed batch costs no request its answer, except for the text that is to blame."""

import asyncio

import pytest

from proxy.errors import BackendError, BackendLost, BackendUnavailable, BadVector
from proxy.faults import PoisonedInput
from proxy.scheduling.entries import Caller
from proxy.scheduling.quarantine import MAX_FAILURES
from proxy.scheduling.results import GIVEN_UP_S
from tests.support.engines.scripted import KNOWN, Engine, called, firsts, serving


async def test_only_the_guilty_request_of_a_shared_batch_fails() -> None:
    engine = Engine(guilty=2, error=BackendError("backend answered 500"))
    async with serving(engine) as dispatcher:
        answers = await asyncio.gather(*(dispatcher.embed([[n]]) for n in range(4)), return_exceptions=True)
    assert [isinstance(answer, BackendError) for answer in answers] == [False, False, True, False]


@pytest.mark.parametrize("error", [BackendLost("lost"), None], ids=["ends the engine", "NaN"])
async def test_a_text_that_goes_wrong_twice_is_poison_and_no_other_request_notices(error: BackendError | None) -> None:
    engine, faults = Engine(guilty=2, error=error), list[BackendError | None]()
    async with serving(engine, faults=faults) as dispatcher:
        answers = await asyncio.gather(*(firsts(dispatcher, [n], [n + 10]) for n in range(4)), return_exceptions=True)
        poisoned = answers.pop(2)
        assert answers == [[0, 10], [1, 11], [3, 13]]
        assert isinstance(poisoned, PoisonedInput)
        assert "input.0" in poisoned.message
        alone = 2 if error else 1  # a shared batch that ended the engine does not tell which text did it
        assert (len(faults), engine.calls.count([2])) == (1 + alone, alone)
        before = len(engine.calls)
        with pytest.raises(PoisonedInput, match=r"input\.1"):
            await dispatcher.embed([[5], [2]])
        outcome = await dispatcher.embed([[2], [5]], Caller(partial=True))
        assert (list(outcome.failed), outcome.served().tolist()) == ([0], [[5, 1]])
        assert engine.calls[before:] == [[5]]


async def test_a_text_that_goes_wrong_only_once_is_served() -> None:
    async with serving(Engine(guilty=2, error=BackendLost("killed from outside"), times=1)) as dispatcher:
        assert await firsts(dispatcher, *([n] for n in range(6))) == list(range(6))


async def test_a_text_that_was_there_each_time_an_engine_was_killed_is_served() -> None:
    """In a shared batch, alone, at the known text before the next try, and alone once more."""
    engine, faults = Engine(), list[BackendError | None]()
    engine.kills = {1, 2, 4, 6}
    async with serving(engine, faults=faults) as dispatcher:
        assert [*await asyncio.gather(firsts(dispatcher, [1]), firsts(dispatcher, [2]))] == [[1], [2]]
        assert not dispatcher.suspects
    assert (len(faults), engine.calls) == (4, [[1, 2], [1], [2], [KNOWN], [KNOWN], [1], [KNOWN], [1]])


async def test_a_text_whose_caller_left_is_tried_alone_when_it_comes_back() -> None:
    engine = Engine(guilty=2, error=BackendLost("lost"))
    async with serving(engine) as dispatcher:
        impatient = asyncio.ensure_future(dispatcher.embed([[2], [3]]))
        await called(engine, 1)
        impatient.cancel()
        assert await firsts(dispatcher, [4]) == [4]
        with pytest.raises(PoisonedInput):
            await asyncio.gather(dispatcher.embed([[2], [5]]), dispatcher.embed([[6], [7]]))
    assert engine.calls.count([2]) == 2
    assert [call for call in engine.calls if 2 in call] == [[2, 3], [2], [2]]


async def test_a_suspect_whose_request_is_cancelled_leaves_the_queue_at_once() -> None:
    engine = Engine(guilty=2, error=BackendLost("lost"))
    async with serving(engine) as dispatcher:
        dispatcher.suspects.quiet_s = 100
        asked = asyncio.ensure_future(dispatcher.embed([[2]]))
        while not dispatcher.queue.retries():
            await asyncio.sleep(0.001)
        assert (dispatcher.queue.texts, dispatcher.queue.tokens) == (1, 1)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        assert (dispatcher.queue.texts, dispatcher.queue.tokens, dispatcher.queue.retries()) == (0, 0, [])
        assert await firsts(dispatcher, [3]) == [3]


async def test_a_text_that_an_unstable_engine_ends_with_repeatedly_is_given_up_not_quarantined() -> None:
    engine = Engine(guilty=2, error=BackendLost("lost"))
    async with serving(engine) as dispatcher:
        asked = asyncio.ensure_future(dispatcher.embed([[2]]))
        for end in range(1, MAX_FAILURES):
            while engine.calls.count([2]) < end:
                await asyncio.sleep(0.001)
            dispatcher.suspects.ended_without()
        with pytest.raises(BackendUnavailable, match="ended with this text several times") as given_up:
            await asked
        assert given_up.value.retry_after_s == GIVEN_UP_S
    assert engine.calls.count([2]) == MAX_FAILURES


async def test_a_batch_that_was_not_accepted_is_sent_again_and_makes_no_text_suspect() -> None:
    engine = Engine(guilty=0, error=BackendUnavailable("down"), times=5)
    async with serving(engine) as dispatcher:
        assert await firsts(dispatcher, *([n] for n in range(4))) == [0, 1, 2, 3]
    assert engine.calls == [[0, 1, 2, 3]] * 6


async def test_a_backend_that_never_answers_holds_up_the_queue_only_for_a_while() -> None:
    engine, faults = Engine(), list[BackendError | None]()
    engine.gate.clear()
    async with serving(engine, faults=faults) as dispatcher:
        waiting = asyncio.ensure_future(firsts(dispatcher, [1]))
        while not faults:
            await asyncio.sleep(0.01)
        assert isinstance(faults[0], BackendLost)
        engine.gate.set()
        assert await waiting == [1]


async def test_vectors_of_another_size_are_an_error() -> None:
    async with serving(Engine(), dimensions=3) as dispatcher:
        with pytest.raises(BadVector, match="gave 2 dimensions, the family has 3"):
            await dispatcher.embed([[1]])
