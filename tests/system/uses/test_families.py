"""`trillama serve` of another family: what its file says is what is computed, and a contradiction starts nothing."""

from pathlib import Path

import aiohttp
import numpy as np
import pytest
import tomli_w

from proxy.types import Matrix
from tests.support.engines.engine import llama_server
from tests.support.models.families import write_family
from tests.support.models.tiny_models import write_lora, write_model
from tests.support.servers.serve import Serve, trillama_serve

TEXTS = ["the quick brown fox", "über die Brücke 我们的模型"]
ENGINE_KINDS = ("embedded",)
CONTEXT = 64


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """An encoder whose header does not say how it pools."""
    return write_model(
        tmp_path / "m.gguf", architecture="bert", kv_heads=4, context=CONTEXT, add_bos=True, add_eos=True
    )


def host(family: Path, model: Path, **models: object) -> dict[str, object]:
    return {
        "family": str(family),
        "models": {"files": {"tiny": str(model)}, **models},
        "engine": {"gpu_layers": 0, "threads": 1},
        "supervision": {"probe_interval_s": 0.2, "quick_delay_s": 0.1},
    }


async def vectors(serve: Serve) -> tuple[Matrix, str]:
    """Of TEXTS, and their vector space."""
    async with aiohttp.ClientSession() as session:
        answer = await session.post(f"{serve.url}/v1/embeddings", json={"input": TEXTS})
        rows = (await answer.json())["data"]
        return np.array([row["embedding"] for row in rows], dtype=np.float32), answer.headers["X-Trillama-Vector-Space"]


async def truth(model: Path, *flags: str, pooling: str) -> Matrix:
    """Of llama.cpp itself."""
    async with llama_server(model, batch_tokens=CONTEXT, pooling=pooling, extra_flags=flags) as engine:  # type: ignore[arg-type]
        rows = await engine.embed(TEXTS)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


async def reload(serve: Serve, config: dict[str, object]) -> tuple[int, str]:
    """The exit code and output of `trillama reload` with that configuration."""
    port = int(serve.url.rsplit(":", 1)[1])
    serve.config.write_text(tomli_w.dumps({"port": port, "runtime_dir": str(serve.runtime), **config}))
    return await serve.command("reload")


async def test_a_corrected_family_file_changes_the_vectors_at_once(tmp_path: Path, model: Path) -> None:
    """Pooling and a LoRA: the new vectors are not taken for a damaged file's. A contradiction changes nothing."""
    mean = write_family(tmp_path / "mean.toml", {"architecture": "bert", "causal": False})
    cls = write_family(tmp_path / "cls.toml", {"architecture": "bert", "causal": False, "pooling": "cls"})
    lora = write_lora(tmp_path / "lora.gguf")
    async with trillama_serve(host(mean, model)) as serve:
        printed = "".join(serve.output)
        assert f"the longest text is {CONTEXT} tokens: the model's file takes no longer ones" in printed
        assert "the model's file does not say how it pools: mean pooling is used, as the family file says" in printed
        before, space = await vectors(serve)
        code, output = await reload(serve, host(cls, model, lora_files={"tiny": str(lora)}))
        assert code == 0, output
        after, other_space = await vectors(serve)
        last = write_family(tmp_path / "last.toml", {"architecture": "bert", "causal": True, "pooling": "last"})
        code, output = await reload(serve, host(last, model))
        assert (code, "its tokens see the whole text: write causal = false" in output.replace("\n", " ")) == (66, True)
        assert np.array_equal((await vectors(serve))[0], after), "it serves as before"
    exact = await truth(model, "--lora", str(lora), pooling="cls")
    assert np.einsum("ij,ij->i", after, exact).min() >= 0.9999
    assert np.einsum("ij,ij->i", before, exact).max() < 0.99
    assert space != other_space


async def test_restart_knows_the_backends_of_what_runs_whatever_the_configuration_says(
    tmp_path: Path, model: Path
) -> None:
    """As after `serve --demo`: `trillama restart` has no configuration, whose family would be jina-embeddings-v4."""
    family = write_family(tmp_path / "mean.toml", {"architecture": "bert", "causal": False})
    async with trillama_serve(host(family, model)) as serve:
        before = serve.child("tiny.sock").pid
        port = int(serve.url.rsplit(":", 1)[1])
        serve.config.write_text(tomli_w.dumps({"port": port, "runtime_dir": str(serve.runtime)}))
        code, output = await serve.command("restart")
        assert (code, "tiny" in output) == (0, True), output
        assert serve.child("tiny.sock").pid != before
