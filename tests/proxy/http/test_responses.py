"""Large responses are written in slices: the same JSON, without blocking other requests."""

import asyncio
import gc
import weakref
from collections.abc import Callable

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from proxy.wire.json_slices import LARGE_FLOATS, SLICE_FLOATS, json_parts
from tests.support.requests.raw import head, said
from tests.support.servers.stack import Stack

# Of a vector each, of bits, of base64, or of many vectors each: in all up to three times what is written at once.
embeddings = st.sampled_from(
    [
        (96, np.full(LARGE_FLOATS // 32, 0.5, np.float32)),
        (20, [np.full(128, n, np.float32) for n in range(LARGE_FLOATS // 1024)]),
        (300, [1, 2] * (LARGE_FLOATS // 200)),
        (30, "x" * LARGE_FLOATS),
    ]
)
rows = st.tuples(st.floats(0, 1), embeddings).map(
    lambda drawn: [{"index": n, "a": drawn[1][1], "text": '"[]'} for n in range(round(drawn[0] * drawn[1][0]))]
)
bodies = st.one_of(
    rows,
    st.fixed_dictionaries({"data": rows, "usage": st.just({"tokens": 1}), "more": rows}),
    st.fixed_dictionaries({"output": st.fixed_dictionaries({"a": st.integers(0, 9), "data": rows})}),
)


async def written(body: object) -> bytes:
    return b"".join([part async for part in json_parts(body)])


@settings(max_examples=25)
@given(bodies)
def test_the_slices_are_the_whole(body: object) -> None:
    assert asyncio.run(written(body)) == orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)


def test_the_vectors_are_freed_once_written() -> None:
    vectors = np.zeros((2 * LARGE_FLOATS // 2048, 2048), np.float32)
    held = weakref.ref(vectors)
    gc.disable()  # it would run much later in a large process: 64 responses of 512 vectors were 250 MB until then
    try:
        asyncio.run(written({"data": list(vectors)}))
        del vectors
        assert held() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "shape",
    [
        list,
        lambda vectors: [list(part) for part in vectors.reshape(256, 128, 128)],
        lambda vectors: [{"embeddings": list(vectors.reshape(-1, 128))}],
    ],
    ids=["a vector each", "many each", "one of many"],
)
async def test_other_tasks_run_between_two_slices(shape: Callable[[NDArray[np.float32]], list[object]]) -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    ticking = asyncio.create_task(others())
    body = {"data": shape(np.zeros((2048, 2048), np.float32))}
    await written(body)
    ticking.cancel()
    assert turns >= 2048 * 2048 // SLICE_FLOATS


async def test_a_large_answer_has_its_id_and_headers_like_any(served: Stack) -> None:
    texts = LARGE_FLOATS // 2048 + 1
    answer = await served.post({"input": [f"{n}" for n in range(texts)]}, **{"X-Request-ID": "mine"})
    assert answer.status == 200
    assert answer.headers["X-Request-ID"] == "mine"
    assert "X-Trillama-Vector-Space" in answer.headers
    data = answer.json["data"]
    assert isinstance(data, list)
    assert [row["index"] for row in data] == list(range(texts))


async def test_a_head_of_a_large_answer_has_no_body(served: Stack) -> None:
    """What followed it on the connection would be taken for the next answer."""
    texts = [f"{n}" for n in range(LARGE_FLOATS // 2048 + 1)]
    job = (await served.post({"input": {"input": texts}}, "/run")).json
    async with asyncio.timeout(60):
        while job["status"] != "COMPLETED":
            await asyncio.sleep(0.05)
            job = (await served.get(f"/status/{job['id']}")).json
    answer = await said(served.url, head("Connection: close", method="HEAD", path=f"/status/{job['id']}"))
    assert (answer.statuses, answer.data.endswith(b"\r\n\r\n")) == ([200], True)
