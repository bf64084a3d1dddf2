"""A vocabulary of a stranger is refused by name, and the engine is asked instead: no panic, no memory, no wrong id."""

import random
import struct
import tempfile
import tracemalloc
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.contract.gguf import BadGGUF, Omitted, read_header
from proxy.tokens.gguf_tokenizer import load_tokenizer
from proxy.tokens.kinds.charsmap import charsmap_normalizer
from proxy.tokens.kinds.vocabulary import UnsupportedTokenizer
from tests.support.models.hostile_gguf import (
    ARRAY,
    FLOAT32,
    INT32,
    LIES,
    MANY,
    STRING,
    UINT8,
    UINT32,
    array,
    gguf,
    pair,
    text,
    texts,
    write,
)
from tests.support.tokens.vocabularies import charsmap

MOST_BYTES = 8 * 2**20


def vocabulary(*more: bytes, tokens: bytes, merges: bytes | None = None, pre: str = "gpt-2") -> bytes:
    return gguf(
        pair("tokenizer.ggml.model", STRING, text("gpt2")),
        pair("tokenizer.ggml.pre", STRING, text(pre)),
        pair("tokenizer.ggml.tokens", ARRAY, tokens),
        pair("tokenizer.ggml.merges", ARRAY, texts() if merges is None else merges),
        *more,
    )


def bos(kind: int, value: bytes) -> tuple[bytes, bytes]:
    return pair("tokenizer.ggml.bos_token_id", kind, value), pair("tokenizer.ggml.add_bos_token", 7, b"\1")


ODD = {
    "empty": (vocabulary(tokens=texts()), "tokens: .*at least 1 item"),
    "doubled": (vocabulary(tokens=texts("a", "b", "a")), "1 tokens are in the vocabulary twice"),
    "a merge to nowhere": (vocabulary(tokens=texts("a", "b"), merges=texts("a b")), "do not fit together"),
    "a merge of nothing": (vocabulary(tokens=texts("a", "b"), merges=texts("")), "do not fit together"),
    "numbers for tokens": (vocabulary(tokens=array(UINT8, 9, bytes(9))), "tokens: "),
    "a million numbers for tokens": (vocabulary(tokens=array(UINT8, 2**20, bytes(2**20))), "tokens: "),
    "more tokens than a model has": (vocabulary(tokens=array(STRING, 2**20 + 1, bytes(2**23 + 8))), "more than"),
    "an alphabet of a number": (vocabulary(tokens=array(FLOAT32, MANY)), "damaged|more than"),
    "begins with none": (vocabulary(*bos(UINT32, struct.pack("<I", 7)), tokens=texts("a")), "not one of the 1 tokens"),
    "begins below": (vocabulary(*bos(INT32, struct.pack("<i", -1)), tokens=texts("a")), "bos_token_id: "),
    "escapes": (vocabulary(tokens=texts("a"), pre="\x1b[2J" * 99), r"^pre-tokenizer '\\x1b\[2J.{0,80} is not support"),
    "no kind": (gguf(pair("general.architecture", STRING, text("bert"))), ": None is not a supported kind"),
    "a number for a kind": (gguf(pair("tokenizer.ggml.model", UINT32, struct.pack("<I", 7))), ": 7 is not a supported"),
    "a key twice": (gguf(*[pair("tokenizer.ggml.model", STRING, text("gpt2"))] * 2), "is there twice"),
}


@pytest.mark.parametrize(("content", "words"), ODD.values(), ids=ODD.keys())
def test_an_odd_vocabulary_is_refused_by_name(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(UnsupportedTokenizer, match=words) as refused:
        load_tokenizer(write(tmp_path / "m.gguf", content))
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize("content", LIES.values(), ids=LIES.keys())
@pytest.mark.parametrize("wanted", [frozenset(), frozenset({"k"})], ids=["skipped", "wanted"])
def test_a_false_claim_is_a_named_error_and_takes_no_memory(
    tmp_path: Path, content: bytes, wanted: frozenset[str]
) -> None:
    path = write(tmp_path / "m.gguf", content)
    tracemalloc.start()
    try:
        with pytest.raises(BadGGUF, match=r"m\.gguf"):
            read_header(path, wanted)
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()


def test_what_is_not_wanted_is_not_read(tmp_path: Path) -> None:
    """A large array of numbers would be a Python list thirty times its size."""
    content = gguf(pair("k", ARRAY, array(UINT8, 2**22, bytes(2**22))), pair("name", STRING, text("it")))
    path = write(tmp_path / "m.gguf", content)
    tracemalloc.start()
    try:
        assert read_header(path, {"name"}).metadata == {"k": Omitted(2**22), "name": "it"}
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@given(
    tokens=st.lists(st.text(max_size=4), max_size=8),
    merges=st.lists(st.text("ab Ġé\0", max_size=5), max_size=4),
    types=st.lists(st.integers(0, 6), max_size=8),
)
@settings(deadline=2000, max_examples=150)
def test_any_vocabulary_is_taken_or_refused(tokens: list[str], merges: list[str], types: list[int]) -> None:
    kinds = pair("tokenizer.ggml.token_type", ARRAY, array(INT32, len(types), struct.pack(f"<{len(types)}i", *types)))
    content = vocabulary(kinds, tokens=texts(*tokens), merges=texts(*merges))
    with tempfile.TemporaryDirectory() as folder, suppress(UnsupportedTokenizer):
        tokenizer = load_tokenizer(write(Path(folder, "m.gguf"), content))
        for ids in tokenizer.encode(["ab é \0", "".join(tokens)]):
            assert all(0 <= token < tokenizer.size for token in ids)
            tokenizer.decode(ids)


@given(
    kind=st.sampled_from(["bert", "t5", "llama"]),
    tokens=st.lists(st.text("ab▁ é#", max_size=4), max_size=8),
    types=st.lists(st.integers(0, 6), max_size=8),
    scores=st.lists(st.floats(width=32), max_size=8),
    ids=st.lists(st.integers(0, 9), min_size=4, max_size=4),
    charsmap=st.binary(max_size=40) | st.just(b""),
    whole=st.booleans(),
)
@settings(deadline=2000, max_examples=200)
def test_any_vocabulary_of_another_kind_is_taken_or_refused(
    kind: str,
    tokens: list[str],
    types: list[int],
    scores: list[float],
    ids: list[int],
    charsmap: bytes,
    whole: bool,
) -> None:
    tokens += [f"<0x{byte:02X}>" for byte in range(256)] if whole and kind == "llama" else []
    scores += [-1.0] * (len(tokens) - len(scores)) if whole else []
    names = ("bos_token_id", "eos_token_id", "seperator_token_id", "unknown_token_id")
    flags = ("add_space_prefix", "remove_extra_whitespaces")
    content = gguf(
        pair("tokenizer.ggml.model", STRING, text(kind)),
        pair("tokenizer.ggml.tokens", ARRAY, texts(*tokens)),
        pair("tokenizer.ggml.token_type", ARRAY, array(INT32, len(types), struct.pack(f"<{len(types)}i", *types))),
        pair("tokenizer.ggml.scores", ARRAY, array(FLOAT32, len(scores), struct.pack(f"<{len(scores)}f", *scores))),
        pair("tokenizer.ggml.precompiled_charsmap", ARRAY, array(UINT8, len(charsmap), charsmap)),
        *(pair(f"tokenizer.ggml.{name}", UINT32, struct.pack("<I", one)) for name, one in zip(names, ids, strict=True)),
        *(pair(f"tokenizer.ggml.{name}", 7, b"\1") for name in flags),
    )
    with tempfile.TemporaryDirectory() as folder, suppress(UnsupportedTokenizer):
        tokenizer = load_tokenizer(write(Path(folder, "m.gguf"), content))
        for row in tokenizer.encode(["ab é \0", "".join(tokens), " a  b "]):
            tokenizer.decode(row)


@given(seed=st.integers(0, 2**32), bits=st.integers(8, 32), end=st.binary(max_size=8))
@settings(deadline=2000, max_examples=200)
def test_any_map_of_characters_is_taken_or_refused(seed: int, bits: int, end: bytes) -> None:
    """Followed blindly, a wild one would end the thread that tokenises."""
    generator = random.Random(seed)
    units = [generator.getrandbits(bits) for _ in range(256)]
    with suppress(UnsupportedTokenizer):
        charsmap_normalizer(struct.pack("<I256I", 1024, *units) + end).normalize_str("aé ﬁ\0 日本")


def test_a_damaged_map_of_characters_is_refused() -> None:
    whole = charsmap({"ﬁ": "fi", "é": "e"})
    assert charsmap_normalizer(whole).normalize_str("ﬁé") == "fie"
    (length,) = struct.unpack_from("<I", whole)
    wild = struct.pack("<I", 2**30 | length) + whole[4:]
    outside = whole[:4] + struct.pack("<I", 2**20 << 10) + whole[8:]
    for damaged in (b"", whole[:3], whole[: 4 + length], wild, outside, whole[:-8] + b"\xff" * 8):
        with pytest.raises(UnsupportedTokenizer, match="precompiled_charsmap"):
            charsmap_normalizer(damaged)
