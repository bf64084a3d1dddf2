"""Under load: queries pass the bulk, keys share, floods are refused with numbers, deadlines cost no compute."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from proxy.contract.admin import State
from proxy.contract.settings import BackendSettings
from proxy.errors import BackendLoading
from proxy.llama.client import LlamaClient, connect
from proxy.models.readiness import WaitLimits
from proxy.models.served_model import ServedModel
from proxy.tokens.gguf_tokenizer import Tokenizer, load_tokenizer
from tests.support.engines.standin import StandIn, Tiny, front, stand_in, tiny_engine
from tests.support.servers.stack import BATCH_TOKENS, Stack, family_of

TASK = "text-matching"
SLOTS, SMALL_TOKENS = 16, BATCH_TOKENS // 4


@dataclass(frozen=True, slots=True)
class Queue:
    """A proxy with two keys before a stand-in that counts its batches."""

    served: Stack
    one: StandIn
    tokenizer: Tokenizer

    async def waiting(self, texts: int) -> None:
        """Wait until so many texts are in the queue."""
        async with asyncio.timeout(20):
            while await self.metric("trillama_queue_texts") != texts:
                await asyncio.sleep(0.005)

    async def metric(self, name: str) -> float:
        lines = (await self.served.get("/metrics", **key("a"))).body.decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name + "{"))


def key(name: str) -> dict[str, str]:
    return {"X-API-Key": name}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tiny(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Tiny]:
    async with tiny_engine(tmp_path_factory.mktemp("tiny")) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tiny: Tiny) -> AsyncIterator[Queue]:
    async with (
        stand_in(tiny.engine) as one,
        front(one.url, tiny.family, tiny.model, api_keys=["a", "b"], max_queued_tokens=40_000) as served,
    ):
        yield Queue(served, one, load_tokenizer(tiny.model))


@pytest.fixture
def queue(running: Queue) -> Queue:
    running.one.calls.clear()
    running.one.gate.set()
    return running


@pytest.mark.asyncio(loop_scope="module")
async def test_queries_pass_a_bulk_of_512_texts(queue: Queue) -> None:
    bulk = asyncio.create_task(
        queue.served.post({"input": [f"document {n} of many words" + " and more" * 8 for n in range(512)]}, **key("a"))
    )
    await queue.one.called(2)
    waited = []
    for number in range(10):
        before = len(queue.one.calls)
        assert (await queue.served.post({"input": f"query {number}"}, **key("a"))).status == 200
        waited.append(len(queue.one.calls) - before)
        assert not bulk.done()
    assert (await bulk).status == 200
    assert max(waited) <= 4  # in flight, perhaps one that bulk is owed, its own, and the one behind
    assert max(sum(map(len, call)) for call in queue.one.calls[4:-2]) <= SMALL_TOKENS


@pytest.mark.asyncio(loop_scope="module")
async def test_a_second_key_gets_half_however_much_the_first_has_asked_for(queue: Queue) -> None:
    queue.one.gate.clear()
    first = [asyncio.create_task(queue.served.post({"input": texts("a", 300, n)}, **key("a"))) for n in range(3)]
    await queue.one.called(1)
    second = asyncio.create_task(queue.served.post({"input": texts("b", 100, 0)}, **key("b")))
    await queue.waiting(3 * 300 + 100 - len(queue.one.calls[0]))
    queue.one.gate.set()
    assert [answer.status for answer in await asyncio.gather(second, *first)] == [200] * 4
    sent = [[queue.tokenizer.decode(ids) for ids in call] for call in queue.one.calls]
    last = max(number for number, call in enumerate(sent) if any("b 0 " in text for text in call))
    assert sum(map(len, sent[: last + 1])) <= 100 * 2 + 4 * SLOTS


def texts(name: str, count: int, number: int) -> list[str]:
    return [f"{name} {number} {index:03d}" for index in range(count)]


@pytest.mark.asyncio(loop_scope="module")
async def test_identical_texts_go_to_the_engine_once(queue: Queue) -> None:
    shared_before = await queue.metric("trillama_deduplicated_total")
    queue.one.gate.clear()
    asked = [asyncio.create_task(queue.served.post({"input": ["same", "other", "same"]}, **key("a")))]
    await queue.one.called(1)
    asked += [asyncio.create_task(queue.served.post({"input": ["same", f"own {n}"]}, **key("b"))) for n in range(3)]
    await queue.waiting(3)
    asked.pop().cancel()
    queue.one.gate.set()
    answers = [answer.json["data"] for answer in await asyncio.gather(*asked)]
    assert {str(row["embedding"]) for data in answers for row in data[:1]} == {str(answers[0][2]["embedding"])}  # type: ignore[index]
    sent = [tuple(ids) for call in queue.one.calls for ids in call]
    assert len(sent) == len(set(sent)) == 4
    assert await queue.metric("trillama_deduplicated_total") - shared_before == 4


@pytest.mark.asyncio(loop_scope="module")
async def test_a_flood_is_refused_before_any_work_with_numbers(queue: Queue) -> None:
    await queue.served.post({"input": texts("warm", 100, 0)}, **key("a"))
    queue.one.gate.clear()
    calls = len(queue.one.calls)
    first = asyncio.create_task(queue.served.post({"input": ["x " * 450, *texts("l", 30, 1)]}, **key("a")))
    await queue.one.called(calls + 1)
    second = asyncio.create_task(queue.served.post({"input": [f"{n} y " * 150 for n in range(30)]}, **key("a")))
    await queue.waiting(30 + 31 - len(queue.one.calls[-1]))
    waiting = int(await queue.metric("trillama_queue_tokens"))
    refused = await queue.served.post({"input": "z" * 4 * 40_000}, **key("b"))
    assert (refused.status, refused.json["code"]) == (429, "QUEUE_FULL")
    assert int(refused.headers["X-Queue-Tokens"]) == waiting > 10_000
    assert 1 <= int(refused.headers["Retry-After"]) <= 600
    assert (await queue.served.post({"input": "q"}, **key("b"), **{"X-Request-Timeout": "0.2"})).status == 504
    queue.one.gate.set()
    assert [answer.status for answer in await asyncio.gather(first, second)] == [200, 200]


@pytest.mark.asyncio(loop_scope="module")
async def test_a_deadline_is_kept_and_what_missed_it_is_not_computed(queue: Queue) -> None:
    queue.one.gate.clear()
    first = asyncio.create_task(queue.served.post({"input": "in flight"}, **key("a")))
    await queue.one.called(1)
    late = await queue.served.post({"input": ["late"] * 3}, **key("a"), **{"X-Request-Timeout": "0.1"})
    assert (late.status, late.json["code"]) == (504, "DEADLINE_EXCEEDED")
    queue.one.gate.set()
    assert (await first).status == 200
    assert (await queue.served.post({"input": "after"}, **key("a"), **{"X-Request-Timeout": "30"})).status == 200
    assert [len(call) for call in queue.one.calls] == [1, 1]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("given", ["soon", "-1", "0", "nan", "inf", "1e999"])
async def test_a_deadline_that_is_none_is_named(queue: Queue, given: str) -> None:
    answer = await queue.served.post({"input": "a"}, **key("a"), **{"X-Request-Timeout": given})
    assert (answer.status, answer.json["code"]) == (422, "VALIDATION_ERROR")
    assert "X-Request-Timeout" in str(answer.json["detail"])


async def until(state: State, model: ServedModel) -> None:
    async with asyncio.timeout(20):
        while model.report().state is not state:
            await asyncio.sleep(0.005)


@pytest_asyncio.fixture
async def paused(tiny: Tiny) -> AsyncIterator[tuple[ServedModel, StandIn]]:
    """A model that is loaded on demand, being served."""
    async with stand_in(tiny.engine) as one, asyncio.TaskGroup() as tasks:
        settings = BackendSettings(
            url=one.url, slots=4, batch_tokens=BATCH_TOKENS, model_file=tiny.model, on_demand=True
        )
        async with connect(LlamaClient, "demand", settings) as backend:
            waiting = WaitLimits(tokens=10_000, batch_s=60, start_s=0.5, recovery_s=60)
            model = ServedModel(backend, family_of(tiny.family), waiting)
            working = tasks.create_task(model.serve())
            yield model, one
            working.cancel()


async def embed(model: ServedModel, *asked: str) -> int:
    async with model.admitted(len(asked)):
        ids = await model.tokenize(asked)
    return len((await model.embed(ids)).rows)


async def test_a_request_for_a_paused_model_waits_until_it_resumes_and_counts_as_use(
    paused: tuple[ServedModel, StandIn],
) -> None:
    model, one = paused
    assert model.report().state is State.PAUSED
    asked = asyncio.create_task(embed(model, "a", "b"))
    async with asyncio.timeout(5):
        while not model.report().waiting_tokens:
            await asyncio.sleep(0)
    assert (one.calls, model.report().idle_s) == ([], 0)
    model.resume()
    assert await asked == 2
    report = model.report()
    assert (report.state, report.requests_total, report.waiting_tokens) == (State.READY, 1, 0)
    assert report.tokens_total > 0
    assert report.tokens_per_s > 0
    assert report.idle_s >= 0


async def test_a_request_that_times_out_at_a_paused_model_learns_the_progress(
    paused: tuple[ServedModel, StandIn],
) -> None:
    model, _ = paused
    await model.pause("42 % loaded")
    with pytest.raises(BackendLoading, match="42 % loaded"):
        await embed(model, "a")
    assert model.report().idle_s > 0


async def test_pausing_finishes_the_batch_in_flight_and_keeps_the_rest_in_the_queue(
    paused: tuple[ServedModel, StandIn],
) -> None:
    model, one = paused
    model.resume()
    await until(State.READY, model)
    one.calls.clear()
    one.gate.clear()
    asked = asyncio.create_task(embed(model, *(f"text {n}" for n in range(12))))
    await one.called(1)
    pausing = asyncio.create_task(model.pause())
    await asyncio.sleep(0)
    assert (model.report().state, model.report().in_flight_texts, pausing.done()) == (State.PAUSED, 4, False)
    one.gate.set()
    await pausing
    assert (model.report().in_flight_texts, model.report().waiting_texts, len(one.calls)) == (0, 8, 1)
    assert model.report().idle_s == 0
    model.resume()
    assert await asked == 12


async def test_pausing_a_model_that_hangs_in_verification_does_not_wait_for_it(
    paused: tuple[ServedModel, StandIn],
) -> None:
    model, one = paused
    one.gate.clear()
    model.resume()
    await one.called(1)
    async with asyncio.timeout(2):
        await model.pause()
    one.gate.set()
    model.resume()
    assert await embed(model, "a") == 1
