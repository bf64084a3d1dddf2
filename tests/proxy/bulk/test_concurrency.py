"""How many calls are in flight."""

import asyncio

from proxy.bulk.concurrency import GOOD_PER_STEP, CallLimit


def test_ten_good_calls_are_one_more_up_to_the_most() -> None:
    limit = CallLimit(start=2, most=4)
    for expected in (3, 4, 4):
        for _ in range(GOOD_PER_STEP):
            limit.good()
        assert limit.limit == expected


def test_a_full_server_halves_once_for_all_calls_that_were_in_flight() -> None:
    limit = CallLimit(start=8, most=8)
    limit.full(0)
    limit.full(0)  # sent before the first cut
    assert limit.limit == 4
    limit.full(limit.cuts)
    limit.full(limit.cuts)
    limit.full(limit.cuts)
    assert limit.limit == 1


async def test_calls_wait_in_order_and_never_exceed_the_limit() -> None:
    limit, order, highest = CallLimit(start=2, most=2), list[int](), 0

    async def call(number: int) -> None:
        nonlocal highest
        async with limit.place():
            highest = max(highest, limit.in_flight)
            order.append(number)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as tasks:
        for number in range(20):
            tasks.create_task(call(number))
    assert order == list(range(20))
    assert highest == 2
    assert limit.in_flight == 0


async def test_a_cancelled_call_gives_its_place_back() -> None:
    limit = CallLimit(start=1, most=1)

    async def call() -> None:
        async with limit.place():
            pass

    async with limit.place():
        waiting = [asyncio.create_task(call()) for _ in range(2)]
        await asyncio.sleep(0)
        waiting[0].cancel()
    waiting[1].cancel()  # it has just been given the place
    await asyncio.gather(*waiting, return_exceptions=True)
    assert limit.in_flight == 0
    async with asyncio.timeout(5), limit.place():
        assert limit.in_flight == 1
