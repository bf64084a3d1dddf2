"""`python -m bench.lean`: the gain from a llama-server that leaves out the logits of embeddings.

The same binary serves the same model twice, with the flag and without, and both get the same batches in turn, so that a
noisy machine disturbs both; the vectors must be equal to the last bit. The model has few layers and the real
vocabulary: the gain with all layers of the real model is derived from these times, as each layer costs the same.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from launcher.build.patches.lean import FLAG
from tests.support.engines.engine import LlamaServer, found_engine, llama_server
from tests.support.models.tiny_models import write_model

_VOCABULARY = 151_936  # Qwen's own
_LAYERS, REAL_LAYERS = 4, 36
_SLOTS, _BATCH_TOKENS = 16, 2048
_MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    name: str
    n_embd: int
    heads: int
    n_ff: int


SIZES = {
    size.name: size
    for size in (
        Size(name="896", n_embd=896, heads=14, n_ff=4864),
        Size(name="2048", n_embd=2048, heads=16, n_ff=11008),  # as in jina-embeddings-v4
    )
}


async def main() -> None:
    """Print one row per size of model."""
    parser = argparse.ArgumentParser(prog="python -m bench.lean", description=__doc__)
    parser.add_argument("--size", choices=list(SIZES), default="896", help="of a layer: its width")
    parser.add_argument("--tokens", type=int, default=_BATCH_TOKENS // 2, help="of a call, about")
    parser.add_argument("--pairs", type=int, default=12, help="calls to each of the two")
    arguments = parser.parse_args()
    if FLAG not in (await found_engine("native")).flags:
        raise SystemExit(f"the native engine does not know {FLAG}: run `trillama engine build`")
    with tempfile.TemporaryDirectory() as folder:
        size = SIZES[arguments.size]
        model = await asyncio.to_thread(_model, Path(folder, "model.gguf"), size)
        stock, lean = await _measure(model, list(_calls(arguments.pairs, arguments.tokens)))
    _show(size, stock, lean)


def _model(path: Path, size: Size) -> Path:
    return write_model(
        path,
        layers=_LAYERS,
        n_embd=size.n_embd,
        heads=size.heads,
        kv_heads=2,
        n_ff=size.n_ff,
        dtype="Q8_0",
        vocabulary=_VOCABULARY,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One server's figures: `seconds` per batch, `tokens` of all batches, bytes at the peak."""

    seconds: tuple[float, ...]
    tokens: int
    peak_rss: int


async def _measure(model: Path, calls: Sequence[Sequence[Sequence[int]]]) -> tuple[Side, Side]:
    """Stock and lean."""
    seconds: tuple[list[float], list[float]] = ([], [])
    async with (
        llama_server(model, engine="native", slots=_SLOTS, batch_tokens=_BATCH_TOKENS, lean=False) as stock,
        llama_server(model, engine="native", slots=_SLOTS, batch_tokens=_BATCH_TOKENS) as lean,
    ):
        servers = (stock, lean)
        await _warm(servers)
        for number, ids in enumerate(calls):
            order = (0, 1) if number % 2 else (1, 0)
            vectors = {}
            for side in order:
                started = time.perf_counter()
                vectors[side] = await servers[side].embed(ids)
                seconds[side].append(time.perf_counter() - started)
            assert vectors[0].tobytes() == vectors[1].tobytes(), "the two do not give the same vectors"
        peaks = [_peak_rss(server.pid) for server in servers]
    tokens = sum(len(one) for ids in calls for one in ids)
    first, second = (
        Side(seconds=tuple(of), tokens=tokens, peak_rss=peak) for of, peak in zip(seconds, peaks, strict=True)
    )
    return first, second


async def _warm(servers: Sequence[LlamaServer]) -> None:
    """A full batch for each: from then on the buffer of results has its final size."""
    for server in servers:
        await server.embed([[7] * (_BATCH_TOKENS // _SLOTS)] * _SLOTS)


def _calls(count: int, tokens: int) -> Iterator[list[list[int]]]:
    """Full slots of mixed lengths (most are short), about `tokens` tokens in all."""
    random = np.random.default_rng(1)
    for _ in range(count):
        lengths = np.exp(random.uniform(np.log(4), np.log(1000), _SLOTS))
        lengths = np.maximum(1, lengths * tokens / lengths.sum()).astype(int)
        yield [random.integers(0, 256, length).tolist() for length in lengths]


def _peak_rss(pid: int) -> int:
    """Peak resident bytes of a process on Linux, the model file included."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def _show(size: Size, stock: Side, lean: Side) -> None:
    ratios = [a / b for a, b in zip(stock.seconds, lean.seconds, strict=True)]
    ratio, quartiles = statistics.median(ratios), statistics.quantiles(ratios, n=4)
    all_layers = REAL_LAYERS / _LAYERS
    table = Table(
        "layers", "stock, tok/s", "lean, tok/s", "ratio (quartiles)", f"at {REAL_LAYERS} layers", "peak RSS, MiB"
    )
    table.add_row(
        f"{_LAYERS} x {size.n_embd}",
        *(f"{side.tokens / sum(side.seconds):.0f}" for side in (stock, lean)),
        f"{ratio:.2f} ({quartiles[0]:.2f} to {quartiles[2]:.2f})",
        f"{1 + (ratio - 1) / all_layers:.2f}",
        f"{stock.peak_rss / _MIB:.0f} -> {lean.peak_rss / _MIB:.0f}",
    )
    Console(width=100).print(table)


if __name__ == "__main__":
    asyncio.run(main())
