"""A corpus through the real proxy and a real llama.cpp."""

from pathlib import Path

import numpy as np

from launcher.corpus.plan import JobOptions
from tests.support.engines.standin import front, tiny_engine
from tests.support.requests.client import embed
from tests.support.requests.corpus import run_corpus, vectors_by_id, verified
from tests.support.servers.embeddings_stub import EmbeddingsStub


async def test_the_vectors_are_those_of_the_api(tmp_path: Path) -> None:
    texts = [f"the passage that say {row}" for row in range(40)]
    corpus, out = tmp_path / "c.txt", tmp_path / "out"
    corpus.write_text("\n".join([*texts, "", "the dog " * 2000]), encoding="utf-8")
    async with tiny_engine(tmp_path) as tiny, front(tiny.engine.url, tiny.family, tiny.model) as served:
        server = EmbeddingsStub(url=served.url)  # only its address is used
        state = await run_corpus(server, out, corpus, options=JobOptions(part_rows=16, task="retrieval.passage"))
        right = await embed(served, texts, task="retrieval.passage")
        assert (await verified(server, out, sample=4)).faults == []
    assert (state.rows, state.error_rows, state.complete) == (
        42,
        2,
        True,
    )
    assert state.vector_space
    found = vectors_by_id(out)
    assert found.pop(40) is None  # empty
    assert found.pop(41) is None  # too long
    cosines = [float(vector @ row) for vector, row in zip(found.values(), right, strict=True) if vector is not None]
    assert len(cosines) == 40
    assert np.min(cosines) > 0.9999
