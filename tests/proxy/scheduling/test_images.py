"""Images in the queue: alone in their batches, at what they cost, and never long before a query."""

import asyncio

import pytest

from proxy.errors import BackendError
from proxy.scheduling.batch_queue import TINY_IMAGE, BatchQueue
from proxy.scheduling.entries import ANYBODY, Caller, TokenizedText
from proxy.scheduling.throughput import IMAGE_COST, MAX_IMAGE_COST, ImageCost
from tests.support.engines.queued_requests import join
from tests.support.engines.scripted import Engine, serving

PICTURE = b'[5, "an image in its prompt"]'


def image(name: bytes, tokens: int, cost: int | None = None) -> TokenizedText:
    return TokenizedText(name, cost or 2 * tokens, exclusive=True, image_tokens=tokens)


def queue() -> BatchQueue:
    return BatchQueue(slots=16, batch_tokens=4096, max_tokens=10**9)


def test_only_a_tiny_image_is_interactive() -> None:
    waiting = queue()
    assert waiting.is_interactive(ANYBODY, [image(b"a", TINY_IMAGE)])
    assert not waiting.is_interactive(ANYBODY, [image(b"a", TINY_IMAGE + 1)])
    assert not waiting.is_interactive(ANYBODY, [image(b"a", TINY_IMAGE, cost=2000)])  # where images take long
    assert not waiting.is_interactive(Caller(bulk=True), [image(b"a", TINY_IMAGE)])


def test_a_query_waits_for_one_image_at_most_however_many_are_before_it() -> None:
    waiting = queue()
    for number in range(20):
        join(waiting, [image(b"i%d" % number, 773)], client=f"c{number % 3}")
    between, last = list[int](), 0
    for number in range(1, 9):
        assert waiting.next_batch(0.0, interactive_lately=True)[0].image_tokens  # in flight when the query comes
        join(waiting, [TokenizedText(b"q%d" % number, 10)])
        images = 0
        while (batch := waiting.next_batch(0.0, interactive_lately=True))[0].image_tokens:
            images += 1
        assert [text.ids for text in batch] == [b"q%d" % number]
        between.append(images)
        last = number
    assert last == 8
    assert max(between) <= 1
    assert sum(between) <= 1  # what a query's tokens earn is far less than an image


def test_images_and_texts_never_share_a_batch() -> None:
    waiting = queue()
    for number in range(30):
        text = TokenizedText(b"t%d" % number, 300)
        join(waiting, [image(b"i%d" % number, 773) if number % 3 == 0 else text], client=f"c{number % 4}")
    taken = 0
    while batch := waiting.next_batch(0.0):
        assert len(batch) == 1 or not any(text.image_tokens for text in batch)
        taken += len(batch)
    assert taken == 30


def test_the_cost_of_images_is_learnt_in_tokens_of_text() -> None:
    cost = ImageCost()
    assert cost.of(100, 1000.0) == 100 * IMAGE_COST
    cost.record(100, 1.0)
    assert cost.of(100, 1000.0) == 1000
    assert cost.of(100, 10.0) == 100  # never less than a text
    cost.record(100, 10_000.0)
    assert cost.of(100, 1000.0) == 100 * MAX_IMAGE_COST


def counting(tokens: int) -> Engine:
    engine = Engine()
    engine.counted = tokens
    return engine


async def test_an_image_is_sent_alone_and_does_not_count_as_the_speed_of_texts() -> None:
    engine = counting(9)
    async with serving(engine) as dispatcher:
        rows, _ = await asyncio.gather(dispatcher.embed_image(PICTURE, 9), dispatcher.embed([[1], [2]]))
        assert rows[0, 0] == 5
        assert sorted(engine.calls) == [[1, 2], [5]]  # and no fillers behind a short one
        assert dispatcher.throughput.tokens == 2
        assert dispatcher.throughput.total == 11


async def test_an_image_whose_tokens_are_counted_differently_has_no_vector() -> None:
    async with serving(counting(10)) as dispatcher:
        with pytest.raises(BackendError, match="made 10 tokens of an image of 9"):
            await dispatcher.embed_image(PICTURE, 9)
        assert len((await dispatcher.embed([[1]])).rows) == 1


async def test_equal_images_that_wait_are_computed_once() -> None:
    engine = counting(9)
    engine.gate.clear()
    async with serving(engine) as dispatcher, asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(dispatcher.embed_image(PICTURE, 9)) for _ in range(5)]
        await asyncio.sleep(0)
        engine.gate.set()
    assert engine.calls == [[5]]
    assert {float(task.result()[0, 0]) for task in asked} == {5.0}
