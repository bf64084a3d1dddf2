"""Which file a backend gets, and which files are refused."""

import tempfile
from contextlib import suppress
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.conversion.gguf_writer import finish_file
from launcher.errors import ModelError
from launcher.models.header_check import check_model
from launcher.models.sources import ModelFile, locate, model_files
from launcher.settings.config import load
from launcher.settings.family import HubFile
from launcher.settings.models import ModelSettings

FAMILY = load(None).family
SMALL = FAMILY.model_copy(update={"dimensions": 64})


def write_gguf(path: Path, *, architecture: str = "qwen2vl", length: int = 64) -> Path:
    """A model of one tensor, F16, 32 x `length`."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_embedding_length(length)
    writer.add_token_list(["a", "b"])
    writer.add_tensor("token_embd.weight", np.zeros((32, length), dtype=np.float16))
    finish_file(writer)
    return path


def test_every_backend_gets_its_file_in_the_wanted_quantisation() -> None:
    local = Path("/models/mine.gguf")

    files = model_files(FAMILY, ModelSettings(quantization="Q8_0", files={"code": local}))

    repo, name = "jinaai/jina-embeddings-v4-text-{}-GGUF", "jina-embeddings-v4-text-{}-Q8_0.gguf"
    assert [(file.backend, file.origin, file.local) for file in files] == [
        ("retrieval", HubFile(repo.format("retrieval"), name.format("retrieval")), None),
        ("code", local, local),
        ("text-matching", HubFile(repo.format("matching"), name.format("matching")), None),
    ]


def test_a_quantisation_that_is_not_offered_is_refused_with_those_that_are() -> None:
    with pytest.raises(ModelError, match=r'"Q9_X".* offered as F16, .*Q4_K_M'):
        model_files(FAMILY, ModelSettings(quantization="Q9_X"))


async def test_the_users_own_file_is_taken_as_it_is() -> None:
    own = ModelFile(backend="code", origin=Path("/models/mine.gguf"))
    assert await locate(own, report=print) == Path("/models/mine.gguf")


def test_a_whole_file_of_the_family_passes(tmp_path: Path) -> None:
    check_model(write_gguf(tmp_path / "m.gguf"), SMALL)


def test_another_architecture_is_refused_with_both_names(tmp_path: Path) -> None:
    model = write_gguf(tmp_path / "m.gguf", architecture="qwen3")
    with pytest.raises(ModelError, match=r"m\.gguf: its architecture is qwen3, this family's is qwen2vl; give"):
        check_model(model, SMALL)


def test_another_embedding_length_is_refused_with_both_numbers(tmp_path: Path) -> None:
    model = write_gguf(tmp_path / "m.gguf", length=128)
    with pytest.raises(ModelError, match=r"its vectors have 128 dimensions, this family's have 2048: give"):
        check_model(model, FAMILY)


@pytest.mark.parametrize("left", [1, 1000, 4000])
def test_a_truncated_file_is_refused(tmp_path: Path, left: int) -> None:
    model = write_gguf(tmp_path / "m.gguf")
    whole = model.read_bytes()
    model.write_bytes(whole[: len(whole) - left])
    with pytest.raises(ModelError, match=rf"cut off: {len(whole) - left} bytes of {len(whole)}; delete it"):
        check_model(model, SMALL)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a GGUF file"),
        (b"<html>not found</html>", "not a GGUF file: it starts with b'<htm'"),
        (b"GGUF", "damaged or cut off"),
        (b"GGUF\0\0\0\3" + bytes(16), "GGUF version 50331648, not 2 or 3"),
        (b"GGUF\3\0\0\0" + b"\xff" * 64, "damaged or cut off"),
    ],
)
def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "m.gguf").write_bytes(content)
    with pytest.raises(ModelError, match=words):
        check_model(tmp_path / "m.gguf", SMALL)


@pytest.mark.parametrize("name", ["", "missing.gguf"])
def test_a_path_that_is_no_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match=r"cannot be read: .*; check the path"):
        check_model(tmp_path / name, SMALL)


@given(st.data())
def test_a_damaged_header_passes_or_is_refused_and_never_crashes(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        model = write_gguf(Path(folder, "m.gguf"))
        content = bytearray(model.read_bytes())
        at = data.draw(st.integers(0, len(content) - 4096))
        content[at] ^= data.draw(st.integers(1, 255))
        model.write_bytes(content[: data.draw(st.integers(0, len(content)))])
        with suppress(ModelError):
            check_model(model, SMALL)
