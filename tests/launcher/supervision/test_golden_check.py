"""Ready means right: the golden check keeps the vectors of a first start, and is idle while the engine is busy."""

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from launcher.engine.argv import CHECK_TOKENS
from launcher.errors import WrongAnswer
from launcher.supervision.golden_check import TEXTS, GoldenCheck, golden_path
from proxy.contract.family import RopeScaling, VectorRules
from tests.support.engines.engine import LlamaServer, llama_server
from tests.support.models.tiny_models import write_model


def canary_of(server: LlamaServer, folder: Path) -> GoldenCheck:
    return GoldenCheck(socket=server.socket, dimensions=64, golden=folder / "golden.npy", timeout_s=20)


async def test_the_first_good_start_is_what_later_ones_are_compared_with(engine_kind: str, tmp_path: Path) -> None:
    async with llama_server(write_model(tmp_path / "a.gguf"), engine=engine_kind) as server:
        canary = canary_of(server, tmp_path)
        await canary.check_vectors()
        assert np.load(canary.golden).shape == (len(TEXTS), 64)
        await canary.check_vectors()
        with pytest.raises(WrongAnswer, match="64 dimensions, not 32"):
            await replace(canary, dimensions=32).check_vectors()
    async with llama_server(write_model(tmp_path / "b.gguf", seed=1), engine=engine_kind) as other:
        with pytest.raises(WrongAnswer, match="not those of this file's first start"):
            await replace(canary, socket=other.socket).check_vectors()
    with pytest.raises(WrongAnswer, match="no answer"):
        await canary.check_vectors()


async def test_it_knows_when_the_engine_is_busy(tmp_path: Path) -> None:
    model = write_model(tmp_path / "a.gguf", layers=4, n_embd=256, n_ff=1024)
    async with llama_server(model, slots=2) as server:
        canary = canary_of(server, tmp_path)
        assert await canary.idle()
        work = asyncio.ensure_future(server.embed(["a long text " * 100] * 16))
        async with asyncio.timeout(30):
            while await canary.idle():
                assert not work.done(), "never seen busy"
        await work


def test_whatever_changes_the_vectors_has_other_golden_vectors(tmp_path: Path) -> None:
    """Else a backend whose family file was corrected would never be right again."""
    model, lora = write_model(tmp_path / "a.gguf"), tmp_path / "lora.gguf"
    lora.write_bytes(b"lora")
    rules = [
        VectorRules(),
        VectorRules(pooling="cls", causal=False),
        VectorRules(pooling="last"),
        VectorRules(rope_scaling=RopeScaling(type="yarn", freq_scale=0.5)),
        VectorRules(rope_scaling=RopeScaling(type="yarn", freq_scale=0.25)),
    ]
    paths = {golden_path(tmp_path, model, one, of) for one in rules for of in (None, lora)}
    lora.write_bytes(b"another")
    model.write_bytes(b"other")
    paths |= {golden_path(tmp_path, model, one, of) for one in rules for of in (None, lora)}
    assert len(paths) == 4 * len(rules)


async def test_the_states_of_tokens_are_pooled_as_the_vectors_are(tmp_path: Path) -> None:
    model = write_model(tmp_path / "a.gguf", architecture="qwen3", pooling="last", add_eos=True)
    async with llama_server(model, pooling="last") as pooled, llama_server(model, pooling="none") as by_token:
        canary = replace(canary_of(pooled, tmp_path), pooling="last")
        await canary.check_vectors()
        await replace(canary, socket=by_token.socket, by_token=True).check_vectors()
        with pytest.raises(WrongAnswer, match="not those of this file's first start"):
            await replace(canary, socket=by_token.socket, by_token=True, pooling="mean").check_vectors()


def test_the_texts_of_the_checks_have_their_room_in_the_context_beside_a_batch() -> None:
    """Also where a token is a byte; the proxy's own is the other text."""
    assert sum(len(text.encode()) for text in (*TEXTS, "Query: trillama")) <= CHECK_TOKENS


def test_files_with_long_names_have_golden_vectors_too(tmp_path: Path) -> None:
    """A file's name may have 255 bytes, and two of them are in the golden vectors' name."""
    model, lora = (tmp_path / (name * 125 + ".gguf") for name in ("é", "ö"))
    for file in (model, lora):
        file.write_bytes(b"a model")
    alone, adapted = (golden_path(tmp_path, model, VectorRules(), of) for of in (None, lora))
    for golden in (alone, adapted):
        np.save(golden.with_name(golden.name + ".unfinished.npy"), np.zeros(1))
    assert alone != adapted
