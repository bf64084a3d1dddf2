"""A GGUF file of a stranger is refused by name, whatever it claims: in a moment, and in little memory."""

import struct
import tempfile
import tracemalloc
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.errors import ModelError
from launcher.measure.compare import _shape  # how `compare` reads a file that nobody checked yet
from launcher.models import header_check
from launcher.models.gguf_file import model_header
from launcher.models.header_check import check_lora, check_model
from launcher.models.mmproj import check_mmproj
from launcher.planning.memory import weights_of
from launcher.settings.config import load
from proxy.contract.gguf import Header, Omitted, Value
from tests.support.models.hostile_gguf import (
    ARCHITECTURE,
    ARRAY,
    FLOAT32,
    INT32,
    LIES,
    MANY,
    STRING,
    UINT32,
    UINT64,
    array,
    gguf,
    pair,
    tensor,
    text,
    write,
)

MIB = 2**20
MOST_BYTES = 8 * MIB
DIMENSION = struct.pack("<Q", MANY)
OURS = {
    "more tensors than bytes": (gguf(tensor_count=MANY), "tensors, more than"),
    "two billion dimensions": (gguf(tensors=tensor(2**31, DIMENSION * 64), tensor_count=1), "dimensions of a tensor"),
    "a key twice": (gguf(ARCHITECTURE, ARCHITECTURE), "is there twice"),
    "alignment 0": (gguf(pair("general.alignment", UINT32, struct.pack("<I", 0))), "not a power of two"),
    "alignment -32": (gguf(pair("general.alignment", INT32, struct.pack("<i", -32))), "not a power of two"),
    "alignment nan": (gguf(pair("general.alignment", FLOAT32, struct.pack("<f", float("nan")))), "not a power of two"),
    "alignment in words": (gguf(pair("general.alignment", STRING, text("wide" * 99))), "not a power of two"),
}


@pytest.mark.parametrize("content", LIES.values(), ids=LIES.keys())
def test_a_false_claim_is_a_named_error_and_takes_no_memory(tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path / "m.gguf", content)
    tracemalloc.start()
    try:
        with pytest.raises(ModelError, match=r"m\.gguf: .*(damaged|version)") as refused:
            model_header(path)
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()
    assert len(str(refused.value)) < 400 + len(str(path))


@pytest.mark.parametrize(("content", "words"), OURS.values(), ids=OURS.keys())
def test_what_only_the_launcher_reads_is_looked_at(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        model_header(write(tmp_path / "m.gguf", content))


def test_a_header_without_end_is_refused(tmp_path: Path) -> None:
    content = gguf(*(pair(f"k{n}", STRING, text(bytes(MIB))) for n in range(66)))
    with pytest.raises(ModelError, match="it has more than 67108864 bytes"):
        model_header(write(tmp_path / "m.gguf", content))


def test_offsets_and_sizes_beyond_any_file_are_a_file_that_is_cut_off(tmp_path: Path) -> None:
    content = gguf(ARCHITECTURE, tensors=tensor(4, DIMENSION * 4, offset=MANY), tensor_count=1)
    header = model_header(write(tmp_path / "m.gguf", content))
    assert header.needed_bytes > 2**200 > header.file_bytes


@pytest.mark.parametrize("value", [-1, 0, 1.5, float("inf"), "many"])
def test_a_size_that_is_none_plans_nothing(value: float | str) -> None:
    names = (
        "block_count",
        "embedding_length",
        "feed_forward_length",
        "attention.head_count",
        "attention.head_count_kv",
    )
    right: dict[str, Value] = {
        "general.architecture": "a",
        "tokenizer.ggml.tokens": Omitted(8),
        **{f"a.{name}": 8 for name in names},
    }
    assert weights_of(Header(metadata=right, file_bytes=1, needed_bytes=1))
    for key in right.keys() - {"general.architecture"}:
        wrong = Header(metadata={**right, key: value}, file_bytes=1, needed_bytes=1)
        assert weights_of(wrong) is None, key


@pytest.mark.parametrize("layers", [2**11, 2**31, 2**62])
def test_layers_that_no_model_has_plan_nothing_and_take_no_memory(layers: int) -> None:
    said: dict[str, Value] = {
        "general.architecture": "a",
        "tokenizer.ggml.tokens": Omitted(8),
        "a.block_count": layers,
        **{f"a.{name}": 8 for name in ("embedding_length", "feed_forward_length", "attention.head_count")},
    }
    assert weights_of(Header(metadata=said, file_bytes=1, needed_bytes=1)) is None
    weights = weights_of(Header(metadata={**said, "a.block_count": 2}, file_bytes=1, needed_bytes=1))
    assert weights
    assert len(weights.shape.layers) == 2


def test_a_list_in_place_of_a_name_or_a_number_is_no_such_thing() -> None:
    said: dict[str, Value] = {
        "general.architecture": [1],
        "general.file_type": [1],
        "tokenizer.ggml.tokens": Omitted(8),
        **{
            f"[1].{name}": 8
            for name in ("block_count", "embedding_length", "feed_forward_length", "attention.head_count")
        },
    }
    header = Header(metadata=said, file_bytes=1, needed_bytes=1)
    weights = weights_of(header)
    assert weights
    assert not weights.unquantized
    with pytest.raises(ModelError, match=r"its architecture is \[1\]"):
        header_check.check_size(Path("m.gguf"), header, architecture="qwen2vl", dimensions=8)
    header_check.check_rules(Path("m.gguf"), header, load(None).family.weights)


@pytest.mark.parametrize("value", [text("long" * 999), array(UINT64, 1024, bytes(range(8)) * 1024)])
def test_a_message_quotes_no_more_than_a_line_of_a_file(tmp_path: Path, value: bytes) -> None:
    kind = STRING if len(value) < 8000 else ARRAY
    path, family = write(tmp_path / "m.gguf", gguf(pair("general.architecture", kind, value))), load(None).family
    adapter = [pair(key, STRING, text(said)) for key, said in (("general.type", "adapter"), ("adapter.type", "lora"))]
    lora = write(tmp_path / "l.gguf", gguf(*adapter, pair("general.architecture", kind, value)))
    vision = [pair("general.architecture", STRING, text("clip")), pair("clip.projector_type", kind, value)]
    encoder = write(tmp_path / "v.gguf", gguf(*vision))
    for check, file in ((check_model, path), (check_lora, lora), (check_mmproj, encoder)):
        with pytest.raises(ModelError) as refused:
            check(file, family)
        assert len(str(refused.value)) < 400 + len(str(file))


def test_many_lists_of_numbers_take_no_memory(tmp_path: Path) -> None:
    content = gguf(*(pair(f"k{n}", ARRAY, array(UINT64, 1024, struct.pack("<Q", MANY - n) * 1024)) for n in range(512)))
    path = write(tmp_path / "m.gguf", content)
    tracemalloc.start()
    try:
        metadata = model_header(path).metadata
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()
    assert metadata["k0"] == [MANY] * 1024
    assert metadata["k511"] == Omitted(1024)


@given(st.data())
@settings(deadline=1000, max_examples=150)
def test_any_bytes_behind_the_magic_are_read_or_refused(data: st.DataObject) -> None:
    pieces = st.one_of(
        st.sampled_from([*LIES.values(), *(content for content, _ in OURS.values())]).map(lambda lie: lie[24:]),
        st.builds(array, st.integers(0, 13), st.integers(0, MANY), st.binary(max_size=64)),
        st.integers(0, MANY).map(lambda number: struct.pack("<Q", number)),
        st.binary(max_size=64),
    )
    body = b"".join(data.draw(st.lists(pieces, max_size=8)))
    counts = st.one_of(st.integers(0, 9), st.integers(0, MANY))
    with tempfile.TemporaryDirectory() as folder:
        content = gguf(body, pair_count=data.draw(counts), tensor_count=data.draw(counts))
        path = write(Path(folder, "m.gguf"), content)
        with suppress(ModelError):
            weights_of(model_header(path))
            _shape(path)
