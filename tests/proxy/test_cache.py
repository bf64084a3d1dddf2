"""The cache: the same vectors, fewer calls; bounded; never another model's; and a file that fails loses nothing."""

import asyncio
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.cache import OVERHEAD_BYTES, Cache, key_of, opened, through
from proxy.embedding import Ids, Matrix
from proxy.errors import PoisonedInput
from proxy.settings_file import ConfigError
from proxy.work import Outcome
from tests.proxy.stack import Stack, small_family, stack

DIMENSIONS = 4
RAW = {"Content-Type": "application/json", "Accept": "application/octet-stream"}
ENTRY = 4 * DIMENSIONS + OVERHEAD_BYTES


def vector(space: str, ids: Ids) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """What the model of that space gives: no two are alike."""
    return np.frombuffer(key_of(space, ids)[: 4 * DIMENSIONS], dtype="<u4").astype(np.float32)


class Model:
    """Computes `vector`, after a turn of the loop, and counts; id 13 is poison."""

    def __init__(self, space: str) -> None:
        self.space = space
        self.computed = 0

    async def __call__(self, inputs: Sequence[Ids]) -> Outcome:
        await asyncio.sleep(0)
        self.computed += len(inputs)
        rows = np.stack([vector(self.space, ids) for ids in inputs])
        return Outcome(rows, {row: PoisonedInput(row) for row, ids in enumerate(inputs) if 13 in ids})


texts = st.lists(st.integers(0, 20), min_size=1, max_size=3)
requests = st.lists(st.tuples(st.sampled_from("ab"), st.lists(texts, min_size=1, max_size=5)), max_size=8)


@given(requests, st.integers(1, 12))
@settings(deadline=None, max_examples=40)
def test_no_vector_is_wrong_however_many_ask_at_once(asked: list[tuple[str, list[list[int]]]], entries: int) -> None:
    async def ask() -> None:
        async with opened(entries * ENTRY, None, DIMENSIONS) as cache:
            assert cache

            async def one(space: str, inputs: list[list[int]]) -> None:
                outcome = await through(cache, space, inputs, Model(space), lambda: True)
                assert set(outcome.failed) == {index for index, ids in enumerate(inputs) if 13 in ids}
                for index, ids in enumerate(inputs):
                    if index not in outcome.failed:
                        np.testing.assert_array_equal(outcome.rows[index], vector(space, ids))

            await asyncio.gather(*(one(space, inputs) for space, inputs in asked))

    asyncio.run(ask())


async def test_what_was_computed_is_not_computed_again_and_the_oldest_makes_room(tmp_path: Path) -> None:
    model = Model("a")
    async with opened(200 * ENTRY, tmp_path / "cache.db", DIMENSIONS) as cache:
        assert cache
        for _ in range(2):
            await through(cache, "a", [[n] for n in range(100, 200)], model, lambda: True)
        assert model.computed == 100
    async with opened(200 * ENTRY, tmp_path / "cache.db", DIMENSIONS) as cache:  # it outlives the process
        assert cache
        await through(cache, "a", [[n] for n in range(100, 110)], model, lambda: True)
        assert model.computed == 100
        await through(cache, "a", [[n] for n in range(200, 350)], model, lambda: True)
        await through(cache, "a", [[n] for n in range(100, 110)], model, lambda: True)  # used of late: still there
        assert model.computed == 250
        await through(cache, "a", [[150]], model, lambda: True)
        assert model.computed == 251


async def test_a_model_that_was_exchanged_meanwhile_leaves_nothing() -> None:
    model = Model("a")
    async with opened(100 * ENTRY, None, DIMENSIONS) as cache:
        assert cache
        await through(cache, "a", [[1]], model, lambda: False)
        await through(cache, "a", [[1]], model, lambda: True)
        assert model.computed == 2


async def test_a_file_that_is_no_cache_is_refused_and_one_that_fails_is_done_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "text").write_text("this is not a database, however long it may be" * 50, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"cache_file = .*text"):
        async with opened(ENTRY, tmp_path / "text", DIMENSIONS):
            pass
    connection = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
    cache = Cache(connection, 10 * ENTRY, DIMENSIONS)
    connection.close()
    outcome = await through(cache, "a", [[1]], Model("a"), lambda: True)
    np.testing.assert_array_equal(outcome.rows[0], vector("a", [1]))
    assert "the cache fails" in caplog.text


async def vectors(served: Stack, **asked: object) -> Matrix:
    answer = await served.request("POST", "/v1/embeddings", orjson.dumps(asked), RAW)
    return np.frombuffer(answer.body, dtype="<f4").reshape(len(asked["input"]), -1)  # type: ignore[arg-type] # a list


async def test_any_size_is_served_from_one_entry(tmp_path: Path) -> None:
    family, models = small_family(tmp_path)
    async with stack("embedded", models, family=family, cache_bytes=10**6, cache_file=str(tmp_path / "c.db")) as served:
        whole = await vectors(served, input=["one", "two"])
        short = await vectors(served, input=["two"], dimensions=16)
        passage = await vectors(served, input=["two"], task="retrieval.passage")
        counted = (await served.get("/metrics")).body.decode()
    expected = whole[1, :16]
    np.testing.assert_allclose(short[0], expected / np.linalg.norm(expected), atol=1e-6)
    assert not np.allclose(passage[0], whole[1], atol=0.01)
    assert 'trillama_cache_total{result="hit"} 1.0' in counted
    assert 'trillama_cache_total{result="miss"} 3.0' in counted
