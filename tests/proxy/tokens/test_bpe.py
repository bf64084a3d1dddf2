"""Our tokens are the engine's tokens, for every text; what we cannot compute we refuse."""

import unicodedata
from collections.abc import AsyncIterator
from pathlib import Path

import gguf
import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.tokens.gguf_tokenizer import PINNED_TEXTS, Tokenizer, load_tokenizer
from proxy.tokens.kinds.vocabulary import UnsupportedTokenizer
from tests.support.engines.engine import LlamaServer, llama_server
from tests.support.models.reference import Reference
from tests.support.models.tiny_models import write_model
from tests.support.tokens.tiny_bpe import add_tokenizer

# Characters on which llama.cpp's hand-written matcher could part from the regular expression it stands for.
ODD = [
    *(
        "\x00",
        "\x1c",
        "\x7f",
        "\x85",
        "\xa0",
        "\xad",
        "\u1680",
        "\u180e",
        "\u200b",
        "\u2028",
        "\u2029",
        "\u3000",
        "\ufeff",
    ),
    *("\u0301", "\u0308", "\u093f", "\u0e33", "\u20dd", "\ufe0f", "\U000e0001", "\u200d"),  # marks and joiners
    *("\u01c5", "\u1f88", "\u02b0", "\xaa", "\u017f", "\u212a", "\u0130", "\ufb01", "\u2126"),  # unusual letters
    *("\xbd", "\xb2", "\u2167", "\u3007", "\u0663", "\U0001d7d8", "\u32bf"),  # numbers: No, Nl, Nd
    *("\u0378", "\ue000", "\U0010ffff", "\ufffd", "\U0001f44d", "\U0001f3fd"),  # unassigned, private, emoji
    *("'", "'s", "'LL", " ", "  ", "\t", "\r", "\n", "\r\n", "a", "Z", "7", "!", "<|im_end|>", "<|im_", "<tool_call>"),
]
TEXTS = st.one_of(
    st.lists(st.sampled_from(ODD), max_size=30).map("".join),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=60),
    st.lists(
        st.sampled_from(["the", " quick", "Brücke", "模型", "ный", " \n", "def ", "()", "12", "'re", " हिन्दी"])
    ).map("".join),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "model.gguf")


@pytest.fixture(scope="module")
def ours(model: Path) -> Tokenizer:
    return load_tokenizer(model)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(model: Path, engine_kind: str) -> AsyncIterator[LlamaServer]:
    async with llama_server(model, engine=engine_kind) as server:
        yield server


@pytest.mark.parametrize("text", PINNED_TEXTS)
async def test_pinned_texts_have_the_engines_tokens(ours: Tokenizer, engine: LlamaServer, text: str) -> None:
    assert ours.encode([text]) == [await engine.tokenize(text)]


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(text=TEXTS)
@pytest.mark.asyncio(loop_scope="module")
async def test_any_text_has_the_engines_tokens(ours: Tokenizer, engine: LlamaServer, text: str) -> None:
    assert ours.encode([text]) == [await engine.tokenize(text)]


@pytest.mark.parametrize("neighbour", ["a", "1", " ", "\n", "!", "'"])
async def test_odd_characters_split_as_in_the_engine(ours: Tokenizer, engine: LlamaServer, neighbour: str) -> None:
    texts = ["<|im_end|>".join((odd, neighbour + odd, odd + neighbour, neighbour + odd * 2 + neighbour)) for odd in ODD]
    for text, ids in zip(texts, ours.encode(texts), strict=True):
        assert ids == await engine.tokenize(text), ascii(text)


@pytest.mark.parametrize(
    "pre",
    ["gpt-2", "jina-v2-code", "roberta-bpe", "modern-bert", "llama-bpe", "deepseek-r1-qwen", "jina-v5-nano"],
)
async def test_other_pre_tokenizers_have_the_engines_tokens(tmp_path: Path, engine_kind: str, pre: str) -> None:
    model = write_model(tmp_path / "model.gguf", pre=pre)
    async with llama_server(model, engine=engine_kind) as engine:
        assert load_tokenizer(model).encode(PINNED_TEXTS) == [await engine.tokenize(text) for text in PINNED_TEXTS]


@pytest.mark.parametrize(("add_bos", "add_eos"), [(True, False), (False, True), (True, True), (None, None)])
async def test_begin_and_end_are_added_as_the_file_says(
    tmp_path: Path, engine_kind: str, add_bos: bool | None, add_eos: bool | None
) -> None:
    for pre in ("qwen2", "llama-bpe"):  # without a word in the file, the second begins with BOS
        model = write_model(tmp_path / "model.gguf", pre=pre, add_bos=add_bos, add_eos=add_eos)
        async with llama_server(model, engine=engine_kind) as engine:
            assert load_tokenizer(model).encode(["the fox", ""]) == [
                await engine.tokenize("the fox"),
                await engine.tokenize(""),
            ]


@given(text=TEXTS)
@settings(deadline=None)
def test_tokens_spell_the_text_and_are_no_more_than_its_bytes(ours: Tokenizer, text: str) -> None:
    (ids,) = ours.encode([text])
    assert ours.decode(ids) == text
    assert len(ids) <= len(text.encode())


def test_a_batch_has_the_tokens_of_each_text_in_order(ours: Tokenizer) -> None:
    assert ours.encode(PINNED_TEXTS) == [ours.encode([text])[0] for text in PINNED_TEXTS]
    assert ours.encode([]) == []


def test_a_byte_level_bpe_by_the_book_agrees(model: Path, ours: Tokenizer) -> None:
    reference = Reference(model)
    assert ours.encode(PINNED_TEXTS) == [reference.encode(text) for text in PINNED_TEXTS]


def test_an_ordinary_token_that_looks_special_is_ordinary(model: Path, ours: Tokenizer) -> None:
    """llama.cpp of 2026 parses `</s>`, an ordinary token of Qwen2's vocabulary that its own tokenizer never makes."""
    text = "<s>struck out</s>"
    assert ours.encode([text]) == [Reference(model).encode(text)]
    assert ours.decode(ours.encode([text])[0]) == text


async def test_neither_we_nor_the_engine_compose_characters(ours: Tokenizer, engine: LlamaServer) -> None:
    """Hugging Face's Qwen2 tokenizer does (NFC): callers that want its tokens compose the text first."""
    composed, decomposed = "M\xfcnchen", "Mu\u0308nchen"
    assert ours.encode([composed]) != ours.encode([decomposed])
    assert ours.encode([decomposed]) == [await engine.tokenize(decomposed)]
    assert ours.encode([unicodedata.normalize("NFC", decomposed)]) == ours.encode([composed])


@pytest.mark.parametrize(
    ("model", "pre", "reason"),
    [
        ("rwkv", "default", "'rwkv' is not a supported kind"),
        ("gpt2", "tekken", "tekken"),
        ("gpt2", "", "pre: Field required"),
    ],
)
def test_another_kind_of_tokenizer_is_refused(tmp_path: Path, model: str, pre: str, reason: str) -> None:
    writer = gguf.GGUFWriter(tmp_path / "vocabulary.gguf", "qwen2")
    add_tokenizer(writer, model=model, pre=pre)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(UnsupportedTokenizer, match=reason):
        load_tokenizer(tmp_path / "vocabulary.gguf")


def test_a_file_cut_short_anywhere_before_its_weights_is_refused(model: Path, tmp_path: Path) -> None:
    content = model.read_bytes()
    cut = tmp_path / "cut.gguf"
    for length in (*range(40), *range(40, content.index(b"add_bos_token"), 499)):
        cut.write_bytes(content[:length])
        with pytest.raises(UnsupportedTokenizer):
            load_tokenizer(cut)


def test_a_missing_file_and_merges_of_another_vocabulary_are_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedTokenizer, match="No such file"):
        load_tokenizer(tmp_path / "missing.gguf")
    foreign = tmp_path / "foreign.gguf"
    foreign.write_bytes(model.read_bytes().replace(b"t h", b"t\x01h", 1).replace(b"h e", b"\x02 e"))
    with pytest.raises(UnsupportedTokenizer, match="do not fit"):
        load_tokenizer(foreign)
