"""A server that does as it is told, and a small corpus."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.requests.corpus import SOME, jsonl
from tests.support.servers.embeddings_stub import EmbeddingsStub, embeddings_stub


@pytest.fixture
async def stub() -> AsyncIterator[EmbeddingsStub]:
    async with embeddings_stub(EmbeddingsStub()) as one:
        yield one


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Twenty-five rows: three parts of ten."""
    file = tmp_path / "c.jsonl"
    file.write_bytes(jsonl(SOME))
    return file
