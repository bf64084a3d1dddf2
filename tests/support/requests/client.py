"""The little that a client does: ask for base64, decode, keep the order."""

import base64
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from proxy.types import Matrix
from tests.support.servers.stack import Stack


async def embed(served: Stack, texts: Sequence[str], **fields: object) -> Matrix:
    """The vectors of `texts`, float32, shape (n, dimensions), taken from the rows in the order they came."""
    answer = await served.post({"input": texts, "embedding_type": "base64", **fields})
    assert answer.status == 200, answer.body
    data = answer.json["data"]
    assert isinstance(data, list)
    assert [row["index"] for row in data] == list(range(len(texts)))
    return vectors_of(data)


def vectors_of(rows: Iterable[Mapping[str, str]]) -> Matrix:
    """base64 of little-endian float32, one per row."""
    return np.array([np.frombuffer(base64.b64decode(row["embedding"]), dtype="<f4") for row in rows])
