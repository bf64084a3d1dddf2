"""`python -m bench.late`: the cost of late chunking and its exactness, in two ways, beside an ordinary pass.

The ways: from pooled prefixes of the document, on the ordinary engine alone; and as trillama chooses it when a second
engine of the same file returns every token. Cosines are between the two, which share nothing but the model.
"""

import argparse
import asyncio
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from proxy.types import Matrix
from tests.support.engines.engine import KINDS
from tests.support.models.families import only
from tests.support.models.tiny_models import write_model
from tests.support.requests.client import embed
from tests.support.servers.stack import FAMILY_FILE, Stack, stack

_WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "while", "passages", "answer", "queries"]
TOKENS_PER_WORD = 2.25  # of the tiny vocabulary, chosen to give too few tokens rather than too many


async def main() -> None:
    """Print one row per size and number of chunks."""
    parser = argparse.ArgumentParser(prog="python -m bench.late", description=__doc__)
    parser.add_argument("--engine", choices=KINDS, default="native")
    parser.add_argument("--dtype", choices=("F16", "Q8_0"), default="Q8_0")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--tokens", type=int, nargs="+", default=[512, 2048])
    parser.add_argument("--chunks", type=int, nargs="+", default=[4, 16, 64])
    parser.add_argument(
        "--most", type=int, default=30_000, help="tokens computed by prefixes; above it only the last chunk's cosine"
    )
    given = parser.parse_args()
    table = Table("tokens", "chunks", "ordinary, s", "prefixes, s", "ratio", "with tokens, s", "ratio", "worst cosine")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "code.gguf")
        write_model(file, dtype=given.dtype, layers=given.layers, n_embd=2048, heads=16, kv_heads=2, n_ff=2048)
        models = {"code": file}
        family, batch_tokens = only(FAMILY_FILE, "code", Path(folder, "code.toml")), max(given.tokens) + 64
        async with (
            stack(given.engine, models, family=family, batch_tokens=batch_tokens) as alone,
            stack(given.engine, models, by_token=["code"], family=family, batch_tokens=batch_tokens) as both,
        ):
            for tokens in given.tokens:
                for chunks in given.chunks:
                    row = await _row(alone, both, tokens, chunks, whole=tokens * (chunks + 1) // 2 <= given.most)
                    table.add_row(str(tokens), str(chunks), *row)
    Console(width=120).print(table)


async def _row(alone: Stack, both: Stack, tokens: int, chunks: int, *, whole: bool) -> list[str]:
    generator = random.Random(tokens * chunks)
    words = [generator.choice(_WORDS) + " " for _ in range(int(tokens / TOKENS_PER_WORD))]
    document = ["".join(part) for part in np.array_split(np.array(words, dtype=object), chunks)]
    ordinary, _ = await _timed(both, ["".join(document)])
    with_tokens, exact = await _timed(both, document, late_chunking=True)
    counted = document if whole else ["".join(document[:-1]), document[-1]]
    seconds, vectors = await _timed(alone, counted, late_chunking=True)
    cosine = float(np.einsum("ij,ij->i", vectors, exact).min()) if whole else float(vectors[-1] @ exact[-1])
    by_prefixes = [f"{seconds:.2f}", f"{seconds / ordinary:.2f}"] if whole else ["", ""]
    quicker = [f"{with_tokens:.2f}", f"{with_tokens / ordinary:.2f}"]
    return [f"{ordinary:.2f}", *by_prefixes, *quicker, f"{cosine:.7f}" + ("" if whole else " (last)")]


async def _timed(served: Stack, texts: Sequence[str], **fields: object) -> tuple[float, Matrix]:
    await embed(served, ["warm"], task="code.passage")
    started = time.perf_counter()
    vectors = await embed(served, texts, task="code.passage", **fields)
    return time.perf_counter() - started, vectors


if __name__ == "__main__":
    asyncio.run(main())
