"""The cache: the same vectors with fewer batches, bounded, and never another model's."""

import asyncio
from pathlib import Path

import numpy as np
import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.models.cache import open_cache
from proxy.types import Matrix
from tests.proxy.models.cached_vectors import DIMENSIONS, ENTRY, Model, cached, vector
from tests.support.servers.stack import Stack, small_family, stack

RAW = {"Content-Type": "application/json", "Accept": "application/octet-stream"}

texts = st.lists(st.integers(0, 20), min_size=1, max_size=3)
requests = st.lists(st.tuples(st.sampled_from("ab"), st.lists(texts, min_size=1, max_size=5)), max_size=8)


@given(requests, st.integers(1, 12))
@settings(deadline=None, max_examples=40)
def test_no_vector_is_wrong_however_many_requests_run_at_once(
    asked: list[tuple[str, list[list[int]]]], entries: int
) -> None:
    async def ask() -> None:
        async with open_cache(entries * ENTRY, None, DIMENSIONS) as cache:
            assert cache

            async def one(space: str, inputs: list[list[int]]) -> None:
                outcome = await cached(cache, space, inputs, Model(space), lambda: True)
                assert set(outcome.failed) == {index for index, ids in enumerate(inputs) if 13 in ids}
                for index, ids in enumerate(inputs):
                    if index not in outcome.failed:
                        np.testing.assert_array_equal(outcome.rows[index], vector(space, ids))

            await asyncio.gather(*(one(space, inputs) for space, inputs in asked))

    asyncio.run(ask())


async def test_what_was_computed_is_not_computed_again_and_the_oldest_makes_room(tmp_path: Path) -> None:
    model = Model("a")
    async with open_cache(200 * ENTRY, tmp_path / "cache.db", DIMENSIONS) as cache:
        assert cache
        for _ in range(2):
            await cached(cache, "a", [[n] for n in range(100, 200)], model, lambda: True)
        assert model.computed == 100
    async with open_cache(200 * ENTRY, tmp_path / "cache.db", DIMENSIONS) as cache:  # it outlives the process
        assert cache
        await cached(cache, "a", [[n] for n in range(100, 110)], model, lambda: True)
        assert model.computed == 100
        await cached(cache, "a", [[n] for n in range(200, 350)], model, lambda: True)
        await cached(cache, "a", [[n] for n in range(100, 110)], model, lambda: True)  # used recently: still there
        assert model.computed == 250
        await cached(cache, "a", [[150]], model, lambda: True)
        assert model.computed == 251


async def test_a_model_that_was_replaced_meanwhile_leaves_nothing_in_the_cache() -> None:
    model = Model("a")
    async with open_cache(100 * ENTRY, None, DIMENSIONS) as cache:
        assert cache
        await cached(cache, "a", [[1]], model, lambda: False)
        await cached(cache, "a", [[1]], model, lambda: True)
        assert model.computed == 2


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
