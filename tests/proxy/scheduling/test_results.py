"""What goes wrong with a call costs nobody an answer but the text that is to blame."""

import asyncio

import pytest

from proxy.errors import (
    BackendError,
    BackendLost,
    BackendUnavailable,
    BadVector,
    PoisonedInput,
)
from proxy.scheduling.entries import Caller
from proxy.scheduling.quarantine import MOST_DEATHS
from proxy.scheduling.results import GIVEN_UP_S
from tests.support.scripted import KNOWN, Engine, called, firsts, serving


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
        alone = 2 if error else 1  # of a shared call that ended the engine it is not known which text did it
        assert (len(doubts), engine.calls.count([2])) == (1 + alone, alone)
        before = len(engine.calls)
        with pytest.raises(PoisonedInput, match=r"input\.1"):
            await lane.embed([[5], [2]])
        outcome = await lane.embed([[2], [5]], Caller(partial=True))
        assert (list(outcome.failed), outcome.served().tolist()) == ([0], [[5, 1]])
        assert engine.calls[before:] == [[5]]


async def test_a_text_that_goes_wrong_only_once_is_served() -> None:
    async with serving(Engine(guilty=2, error=BackendLost("killed by somebody"), times=1)) as lane:
        assert await firsts(lane, *([n] for n in range(6))) == list(range(6))


async def test_a_text_that_was_there_each_time_an_engine_was_killed_is_served() -> None:
    """In a shared call, alone, at the known text before the next try, and alone once more."""
    engine, doubts = Engine(), list[BackendError | None]()
    engine.kills = {1, 2, 4, 6}
    async with serving(engine, doubts=doubts) as lane:
        assert [*await asyncio.gather(firsts(lane, [1]), firsts(lane, [2]))] == [[1], [2]]
        assert not lane.suspects
    assert (len(doubts), engine.calls) == (4, [[1, 2], [1], [2], [KNOWN], [KNOWN], [1], [KNOWN], [1]])


async def test_a_text_whose_caller_left_is_tried_alone_when_it_comes_back() -> None:
    engine = Engine(guilty=2, error=BackendLost("lost"))
    async with serving(engine) as lane:
        impatient = asyncio.ensure_future(lane.embed([[2], [3]]))
        await called(engine, 1)
        impatient.cancel()
        assert await firsts(lane, [4]) == [4]
        with pytest.raises(PoisonedInput):
            await asyncio.gather(lane.embed([[2], [5]]), lane.embed([[6], [7]]))
    assert engine.calls.count([2]) == 2
    assert [call for call in engine.calls if 2 in call] == [[2, 3], [2], [2]]


async def test_a_suspect_that_nobody_waits_for_any_more_leaves_the_line_at_once() -> None:
    engine = Engine(guilty=2, error=BackendLost("lost"))
    async with serving(engine) as lane:
        lane.suspects.quiet_s = 100
        asked = asyncio.ensure_future(lane.embed([[2]]))
        while not lane.line.aside():
            await asyncio.sleep(0.001)
        assert (lane.line.texts, lane.line.tokens) == (1, 1)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        assert (lane.line.texts, lane.line.tokens, lane.line.aside()) == (0, 0, [])
        assert await firsts(lane, [3]) == [3]


async def test_a_text_that_an_ailing_engine_ends_with_again_and_again_is_given_up_not_condemned() -> None:
    engine = Engine(guilty=2, error=BackendLost("lost"))
    async with serving(engine) as lane:
        asked = asyncio.ensure_future(lane.embed([[2]]))
        for end in range(1, MOST_DEATHS):
            while engine.calls.count([2]) < end:
                await asyncio.sleep(0.001)
            lane.suspects.ended_without()
        with pytest.raises(BackendUnavailable, match="ended with this text several times") as given_up:
            await asked
        assert given_up.value.retry_after_s == GIVEN_UP_S
    assert engine.calls.count([2]) == MOST_DEATHS


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
