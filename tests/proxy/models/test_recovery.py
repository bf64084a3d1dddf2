"""No waiting request is lost when an engine dies or fails, and only a text that is to blame gets an error."""

import asyncio
import os
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from proxy.contract.admin import State
from proxy.contract.settings import BackendSettings
from proxy.llama.client import LlamaClient, connect
from proxy.models.readiness import WaitLimits
from proxy.models.served_model import ServedModel
from proxy.models.verification import KNOWN_TEXT
from tests.support.engines.engine import LlamaServer, llama_server
from tests.support.engines.standin import Fault, StandIn, Tiny, front, stand_in, tiny_engine
from tests.support.servers.stack import BATCH_TOKENS, Answer, Stack, family_of

POISON = "xyzzy plugh"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tiny(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Tiny]:
    async with tiny_engine(tmp_path_factory.mktemp("tiny")) as running:
        yield running


def codes(answer: Answer) -> list[str | None]:
    """Each row's error code, None where it has a vector."""
    data = answer.json["data"]
    assert isinstance(data, list)
    assert [row["index"] for row in data] == list(range(len(data)))
    return [row["error"]["code"] if "error" in row else None for row in data]


async def poisoned(engine: LlamaServer, one: StandIn, fault: Fault) -> None:
    ids = (await engine.tokenize(f"Query: {POISON}"))[-3:]
    one.fault = lambda given: fault if given[-3:] == ids else None


async def test_all_requests_are_answered_when_the_engine_is_killed_and_comes_back(tiny: Tiny) -> None:
    with tempfile.TemporaryDirectory(prefix="trillama-") as folder:
        socket = Path(folder, "e.sock")
        async with AsyncExitStack() as exits:
            engine = await exits.enter_async_context(llama_server(tiny.model, socket=socket))
            served = await exits.enter_async_context(front(engine.url, tiny.family, tiny.model))
            texts = [f"{number} " * 60 for number in range(300)]
            bulk = asyncio.create_task(served.post({"input": texts}))
            while await metric(served, 'trillama_call_texts_count{backend="text-matching"}') < 3:
                await asyncio.sleep(0.005)
            single = asyncio.create_task(served.post({"input": "a query"}))
            os.kill(engine.pid, signal.SIGKILL)
            while await metric(served, 'trillama_recoveries_total{backend="text-matching"}') < 1:
                await asyncio.sleep(0.005)
            assert not bulk.done()
            socket.unlink()
            await exits.enter_async_context(llama_server(tiny.model, socket=socket))
            assert [answer.status for answer in await asyncio.gather(bulk, single)] == [200, 200]
            alone = await served.post({"input": texts[7]})
            assert bulk.result().json["data"][7]["embedding"] == pytest.approx(  # type: ignore[index]
                alone.json["data"][0]["embedding"],  # type: ignore[index]
                abs=1e-3,
            )


async def metric(served: Stack, name: str) -> float:
    lines = (await served.get("/metrics")).body.decode().splitlines()
    return next((float(line.split()[-1]) for line in lines if line.startswith(name)), 0.0)


@pytest.mark.parametrize("fault", [Fault.DIE, Fault.NAN])
async def test_only_the_text_to_blame_gets_an_error(tiny: Tiny, fault: Fault) -> None:
    async with stand_in(tiny.engine) as one, front(one.url, tiny.family, tiny.model) as served:
        await poisoned(tiny.engine, one, fault)
        one.gate.clear()
        one.calls.clear()
        first = asyncio.create_task(served.post({"input": "first in flight"}))
        await one.called(1)
        others = [asyncio.create_task(served.post({"input": [f"text {n}", f"more {n}"]})) for n in range(4)]
        guilty = asyncio.create_task(served.post({"input": ["good", POISON]}))
        partly = asyncio.create_task(
            served.post({"input": ["fine", POISON, "too long " * 3000], "on_error": "partial"})
        )
        while await metric(served, 'trillama_queue_texts{backend="text-matching"}') < 11:
            await asyncio.sleep(0.005)
        one.gate.set()
        assert [answer.status for answer in await asyncio.gather(first, *others)] == [200] * 5
        refused = await guilty
        assert (refused.status, refused.json["code"]) == (422, "INPUT_POISONED")
        assert "input.1" in str(refused.json["detail"])
        assert codes(await partly) == [None, "INPUT_POISONED", "INPUT_TOKEN_LIMIT_EXCEEDED"]
        assert (await served.post({"input": POISON})).json["code"] == "INPUT_POISONED"
        sent = sum(one.fault(ids) is fault for call in one.calls for ids in call)
        assert sent == (4 if fault is Fault.DIE else 2)  # what was lost is sent once more: it may be a stale connection
        assert await metric(served, 'trillama_quarantined_total{backend="text-matching"}') == 1


async def test_an_engine_that_gives_nan_for_everything_is_told_apart_from_a_text_that_does(tiny: Tiny) -> None:
    async with stand_in(tiny.engine) as one, front(one.url, tiny.family, tiny.model) as served:
        one.wedged = True
        asked = asyncio.create_task(served.post({"input": "innocent"}))
        while "no finite vector for any text" not in str((await served.get("/ready")).json["backends"]):
            await asyncio.sleep(0.01)
        one.wedged = False  # it was started again
        assert (await asked).status == 200


async def test_an_engine_that_also_ends_at_its_verification_makes_no_text_suspect(tiny: Tiny) -> None:
    """With the text alone, then at the verification, then with the text alone once more: it is served after that."""
    async with stand_in(tiny.engine) as one, asyncio.TaskGroup() as tasks:
        settings = BackendSettings(url=one.url, batch_tokens=BATCH_TOKENS, model_file=tiny.model)
        async with connect(LlamaClient, "sick", settings) as backend:
            waiting = WaitLimits(tokens=10_000, batch_s=60, start_s=60, recovery_s=60)
            model = ServedModel(backend, family_of(tiny.family), waiting)
            model.dispatcher.suspects.quiet_s = 0.01
            working = tasks.create_task(model.serve())
            while model.report().state is not State.READY:
                await asyncio.sleep(0.005)
            text, known = [list(ids) for ids in await model.tokenize(["harmless", KNOWN_TEXT])]
            ends = [text, known, text]

            def fault(given: list[int]) -> Fault | None:
                if ends and given == ends[0]:
                    del ends[0]
                    return Fault.DIE
                return None

            one.fault = fault
            assert len((await model.embed([text])).rows) == 1
            assert not ends
            working.cancel()


async def test_requests_for_an_engine_that_does_not_come_back_get_a_retry_after(tiny: Tiny) -> None:
    async with stand_in(tiny.engine) as one, front(one.url, tiny.family, tiny.model, recovery_s=0.3) as served:
        one.dead_until = asyncio.get_running_loop().time() + 1000
        waited = await served.post({"input": "hello"})
        at_once = await served.post({"input": "hello"})
        for answer in (waited, at_once):
            assert (answer.status, answer.json["code"]) == (503, "BACKEND_UNAVAILABLE")
            assert int(answer.headers["Retry-After"]) > 0
            assert int(answer.headers["X-Queue-Tokens"]) >= 0
        one.dead_until = 0
        while (await served.get("/ready")).status != 200:
            await asyncio.sleep(0.01)
        assert (await served.post({"input": "hello"})).status == 200


async def test_a_part_that_fails_by_itself_has_its_error_in_its_row(tiny: Tiny) -> None:
    async with front(tiny.engine.url, tiny.family, tiny.model) as served:
        body = {"input": ["a", "b " * 9000, "c"], "on_error": "partial"}
        part, alone = await served.post(body), await served.post({"input": ["a", "c"]})
        assert codes(part) == [None, "INPUT_TOKEN_LIMIT_EXCEEDED", None]
        assert part.json["usage"] == alone.json["usage"]
        raw = await served.post(body, Accept="application/octet-stream")
        whole = await served.post({**body, "on_error": "fail"})
        all_failed = await served.post({**body, "input": ["b " * 9000]})
        assert [answer.status for answer in (raw, whole, all_failed)] == [400] * 3
        assert "input 1 has" in str(whole.json["detail"])
        assert (await served.post({**body, "on_error": "maybe"})).status == 422
