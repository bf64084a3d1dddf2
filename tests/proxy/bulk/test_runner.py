"""A job's parts run to their end, whatever their calls do."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pytest

from proxy.bulk.concurrency import CallLimit
from proxy.bulk.runner import (
    BulkRunner,
    CallFailed,
    CallRefused,
    RetryPolicy,
    RowError,
    ServerBusy,
)

AT_ONCE = RetryPolicy(first_pause_s=0, longest_pause_s=0)
Fault = Callable[[Sequence[int]], Exception | None]


@dataclass
class Server:
    """Negates numbers, or raises what `fault` says for a call."""

    fault: Fault = lambda _: None
    sent: list[list[int]] = field(default_factory=list)

    async def send(self, rows: Sequence[int]) -> Sequence[int | RowError]:
        self.sent.append(list(rows))
        await asyncio.sleep(0)
        if error := self.fault(rows):
            raise error
        return [-row for row in rows]


def numbers(parts: int = 3) -> Iterator[tuple[int, list[range]]]:
    """Each part is ten numbers, named by its first; four in a call."""
    for first in range(0, parts * 10, 10):
        yield first, [range(at, min(at + 4, first + 10)) for at in range(first, first + 10, 4)]


async def outcome(server: Server, parts: int = 3, limit: CallLimit | None = None) -> dict[int, list[int | RowError]]:
    """The results of each part, by its first number."""
    done: dict[int, list[int | RowError]] = {}

    async def commit(part: int, results: Sequence[int | RowError]) -> None:
        assert part not in done
        done[part] = list(results)

    runner = BulkRunner[int, int](send=server.send, policy=AT_ONCE, limit=limit or CallLimit())
    async with asyncio.timeout(20):
        await runner.run(numbers(parts), commit)
    return done


def errors_of(done: dict[int, list[int | RowError]]) -> dict[int, str]:
    """The code of each row that is an error; every other row has its own result."""
    codes = dict[int, str]()
    for start, results in done.items():
        assert len(results) == 10
        for row, result in enumerate(results, start):
            if isinstance(result, RowError):
                codes[row] = result.code
            else:
                assert result == -row
    return codes


async def test_every_row_has_its_result_in_order() -> None:
    done = await outcome(Server())
    assert sorted(done) == [0, 10, 20]
    assert errors_of(done) == {}


async def test_a_busy_server_is_asked_again_without_end() -> None:
    refusals = iter(range(50))

    def fault(_: Sequence[int]) -> Exception | None:
        return ServerBusy("full", retry_after_s=0, full=True) if next(refusals, None) is not None else None

    limit = CallLimit(start=8, most=8)
    assert errors_of(await outcome(Server(fault), limit=limit)) == {}
    assert limit.limit < 8


async def test_a_refused_call_is_halved_until_the_guilty_row_is_an_error() -> None:
    server = Server(lambda rows: CallRefused("too_long", "it is too long") if 13 in rows else None)
    assert errors_of(await outcome(server)) == {13: "too_long"}
    assert server.sent.count([13]) == 1


async def test_a_failing_row_is_tried_three_times_and_never_ends_the_job() -> None:
    server = Server(lambda rows: CallFailed("http_502", "bad gateway") if 7 in rows or 21 in rows else None)
    assert errors_of(await outcome(server)) == {7: "http_502", 21: "http_502"}
    assert server.sent.count([7]) == 3


async def test_a_call_that_fails_twice_is_no_error() -> None:
    failures = iter(range(2))
    server = Server(
        lambda rows: CallFailed("http_504", "slow", full=True) if 0 in rows and next(failures, 9) < 9 else None
    )
    assert errors_of(await outcome(server)) == {}


async def test_a_stop_completes_the_parts_in_work_and_begins_no_other() -> None:
    stop, done, server = asyncio.Event(), list[int](), Server()

    async def commit(part: int, results: Sequence[int | RowError]) -> None:
        assert len(results) == 10
        done.append(part)
        stop.set()

    await BulkRunner[int, int](send=server.send, parts_in_work=2).run(numbers(100), commit, stop)
    assert sorted(done) in ([0, 10], [0, 10, 20])


async def test_another_exception_ends_the_job() -> None:
    server = Server(lambda rows: PermissionError("no such key") if 15 in rows else None)
    with pytest.raises(ExceptionGroup) as raised:
        await outcome(server, parts=100)
    assert raised.group_contains(PermissionError)
    assert len(server.sent) < 50


async def test_as_many_calls_are_in_flight_as_the_limit_allows() -> None:
    now = highest = 0

    async def send(rows: Sequence[int]) -> Sequence[int]:
        nonlocal now, highest
        now += 1
        highest = max(highest, now)
        for _ in range(5):
            await asyncio.sleep(0)
        now -= 1
        return rows

    async def commit(part: int, results: Sequence[int | RowError]) -> None:
        pass

    await BulkRunner[int, int](send=send, limit=CallLimit(start=3, most=3)).run(numbers(5), commit)
    assert highest == 3


@pytest.mark.parametrize(
    ("failures", "retry_after_s", "least", "most"), [(0, None, 0.25, 0.5), (9, None, 15, 30), (0, 7, 7, 8)]
)
def test_the_pause_grows_to_its_limit_and_obeys_retry_after(
    failures: int, retry_after_s: float | None, least: float, most: float
) -> None:
    assert least <= RetryPolicy().pause_s(failures, retry_after_s) <= most
