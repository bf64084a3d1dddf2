"""Infinity: the same shape in torch, float32, random weights. It takes 2048 tokens per text, as we do."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson

from bench.measures.throughput import RoundLoad, figures_of, rounds
from bench.rows import Found, Row, ratio
from bench.servers import contenders
from bench.servers.contenders import BATCH_TOKENS, SLOTS, Contender, Host, Program, up
from bench.servers.environments import virtual_environment
from bench.servers.setups import direct, trillama
from launcher.measure.loadgen import WORDS
from tests.support.servers.stack import unused_port

LOAD = RoundLoad("mixed", 32, 16)


async def beside_infinity(host: Host, seed: int) -> Found:
    """Mixed texts, one per request, by as many clients as there are slots."""
    if "infinity" not in host.others:
        return Found(model=host.made.shape.why, rows=(), notes=("Infinity: not asked for (--with infinity)",))
    found = await rounds(host, (direct, trillama, infinity), LOAD, seed)
    speeds = {name: [one.tokens_per_s for one in runs] for name, runs in found.items()}
    middle, least, most = ratio(speeds["trillama"], speeds["Infinity (torch, float32)"])
    seen = f"{middle:.2f} ({least:.2f} to {most:.2f})"
    row = Row(measure="tokens/s served, mixed lengths, vs Infinity (torch on the CPU)", goal="", seen=seen, met=None)
    return Found(model=host.made.shape.why, rows=(row,), figures=figures_of(found))


@asynccontextmanager
async def infinity(host: Host) -> AsyncIterator[Contender]:
    """One process, with our batch size and all our cores."""
    program, port = await virtual_environment("infinity"), unused_port()
    folder = host.made.model.with_suffix(".torch")
    if not (folder / "tokenizer.json").exists():
        await _make(program.parent / "python", folder, host)
    argv = (
        *(str(program), "v2", "--model-id", str(folder), "--engine", "torch", "--device", "cpu"),
        *("--no-bettertransformer", "--served-model-name", "bench", "--url-prefix", "/v1"),
        *("--batch-size", str(SLOTS), "--host", "127.0.0.1", "--port", str(port), "--log-level", "error"),
    )
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0"}
    env["OMP_NUM_THREADS"] = str(host.threads)
    body = {"model": "bench"}
    named = Program(name="Infinity (torch, float32)", argv=argv, port=port, env=env, body=body, same_weights=False)
    async with up(named) as contender:
        yield contender


async def _make(python: Path, folder: Path, host: Host) -> None:
    shape = host.made.shape
    sizes = {
        "layers": shape.layers,
        "n_embd": shape.n_embd,
        "heads": shape.heads,
        "kv_heads": 2,
        "n_ff": shape.n_ff,
        "vocabulary": shape.vocabulary,
        "longest": BATCH_TOKENS,
        "words": [*WORDS, "Passage", ":"],
    }
    script = Path(contenders.__file__).with_name("infinity_model.py")
    process = await asyncio.create_subprocess_exec(str(python), str(script), str(folder), orjson.dumps(sizes).decode())
    assert await process.wait() == 0, "the model for Infinity could not be made"
