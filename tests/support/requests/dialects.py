"""What the tests of all dialects share: the vectors of the embeddings API for the same texts."""

import numpy as np
import numpy.typing as npt

from tests.support.servers.stack import Answer, Stack

Floats = npt.NDArray[np.float32]
NOISE = 2e-3  # two batches of the engine differ by less; two texts, tasks or prefixes by far more


async def expected(served: Stack, *texts: object, task: str = "text-matching", **body: object) -> Floats:
    """The vectors from `/v1/embeddings`."""
    answer = await served.post({"input": list(texts), "task": task, **body})
    return np.array(embeddings(answer), dtype=np.float32)


def embeddings(answer: Answer) -> list[object]:
    """The embedding of each text in a response of `/v1/embeddings`."""
    assert answer.status == 200, answer.body
    data = answer.json["data"]
    assert isinstance(data, list)
    return [row["embedding"] for row in data]


def same(got: object, vectors: Floats) -> bool:
    """Whether `got` is those vectors, each in its place."""
    found = np.asarray(got, dtype=np.float32)
    return found.shape == vectors.shape and bool(np.all(np.abs(found - vectors) < NOISE))
