"""The files of the GPU bench: models of the real proportions, and an engine in parts."""

from pathlib import Path

import gguf
import numpy as np
import pytest

from bench.gpu import engine, models
from bench.gpu.models import MIXTURES, Sizes
from bench.gpu.scale import GPU, REHEARSAL
from launcher.planning.memory import weights_of
from launcher.settings.config import load
from proxy.contract.gguf import read_header
from tests.support.models.reference import Reference


@pytest.mark.parametrize("quantization", MIXTURES)
def test_a_model_has_the_sizes_it_was_asked_for(tmp_path: Path, quantization: str) -> None:
    sizes = REHEARSAL.checked
    header = read_header(models.write(tmp_path / "model.gguf", sizes, quantization))
    found = weights_of(header)
    assert found
    assert header.needed_bytes == header.file_bytes
    assert (len(found.shape.layers), found.shape.embedding_length) == (sizes.layers, sizes.n_embd)
    assert (found.shape.feed_forward_length, found.shape.vocabulary) == (sizes.n_ff, sizes.vocabulary)
    assert found.unquantized == (quantization == "F16")


def test_its_vectors_depend_on_words_order_and_seed(tmp_path: Path) -> None:
    one, other = (Reference(models.write(tmp_path / f"{n}.gguf", REHEARSAL.checked, "Q8_0", seed=n)) for n in (0, 1))
    texts = ["the dog and the text", "the text and the dog", "over the passage"]
    vectors = [*one.embed_texts(texts), other.embed_texts(texts[:1])[0]]
    units = np.array([vector / np.linalg.norm(vector) for vector in vectors])
    assert np.triu(units @ units.T, k=1).max() < 0.99


def test_the_real_shape_is_the_family_s() -> None:
    shape, real = load(None).family.weights.shape, GPU.real
    assert shape
    assert (real.layers, real.n_embd, real.n_ff, real.vocabulary) == (
        shape.layers,
        shape.embedding_length,
        shape.feed_forward_length,
        shape.vocabulary,
    )
    assert models.KV_HEADS * real.head == shape.kv_length


@pytest.mark.parametrize(("quantization", "gib"), [("F16", 5.75), ("Q8_0", 3.05), ("Q4_K_M", 1.79)])
def test_the_real_shape_takes_as_many_bytes_as_the_published_files(quantization: str, gib: float) -> None:
    assert matrix_bytes(GPU.real, quantization) / 2**30 == pytest.approx(gib, rel=0.01)


def matrix_bytes(sizes: Sizes, quantization: str) -> float:
    total = 0.0
    for one in models.matrices(sizes, MIXTURES[quantization]):
        numbers, size = gguf.GGML_QUANT_SIZES[one.kind]
        total += one.rows * one.columns * size / numbers
    return total


def test_an_engine_in_parts_is_the_same_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built, out = tmp_path / "built", tmp_path / "out"
    built.mkdir()
    out.mkdir()
    (built / engine.SERVER).write_bytes(np.random.default_rng(0).bytes(300_000))
    (built / engine.SERVER).chmod(0o755)
    (built / "libggml.so.0").write_bytes(b"library")
    (built / "libcublasLt.so.13").write_bytes(b"large")
    monkeypatch.setattr(engine, "PART_BYTES", 100_000)
    monkeypatch.setattr(engine, "TOOLKITS", (str(tmp_path / "built"),))
    parts = engine.pack_engine(built, out)
    assert len(parts) == 4
    engine.unpack_engine(out, tmp_path / "again")
    assert sorted(one.name for one in (tmp_path / "again").iterdir() if not one.is_symlink()) == [
        "libggml.so.0",
        engine.SERVER,
    ]
    assert (tmp_path / "again" / "libcublasLt.so.13").read_bytes() == b"large", "the toolkit's own is linked"
    assert (tmp_path / "again" / engine.SERVER).read_bytes() == (built / engine.SERVER).read_bytes()
    assert (tmp_path / "again" / engine.SERVER).stat().st_mode & 0o111
    parts[1].write_bytes(parts[1].read_bytes()[:-1])
    with pytest.raises(engine.NoEngine, match=r"engine\.01 is damaged"):
        engine.unpack_engine(out, tmp_path / "again")
