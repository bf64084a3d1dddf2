"""WordPiece, Unigram and SentencePiece's BPE give the original tokenizer's ids, for every text."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.tokens.gguf_tokenizer import Tokenizer, load_tokenizer
from proxy.tokens.kinds.vocabulary import UnsupportedTokenizer
from tests.support.tokens.vocabularies import (
    SPACE,
    USER_DEFINED,
    Original,
    hugging_face,
    original,
    texts,
    write_vocabulary,
)

NAMES = ("wordpiece", "unigram", "spm")
GEMMAS_OWN = ("\n", "\n\n", "  ", "   ", "\t", "\t\t", "</div>")
TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=60),
    st.lists(st.sampled_from(texts()), max_size=3).map("".join),
    st.lists(st.sampled_from("".join(texts())), max_size=40).map("".join),
)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    folder = tmp_path_factory.mktemp("vocabularies")
    return {name: load_tokenizer(write_vocabulary(folder / f"{name}.gguf", original(name))) for name in NAMES}


@pytest.fixture(scope="module")
def like_gemma(tmp_path_factory: pytest.TempPathFactory) -> tuple[Original, Tokenizer]:
    """SentencePiece's BPE with what Gemma's vocabulary has and Mistral's has not."""
    spm, scores = original("spm"), original("spm").scores or []
    update = {
        "tokens": [*spm.tokens, *GEMMAS_OWN],
        "types": [*spm.types, *[USER_DEFINED] * len(GEMMAS_OWN)],
        "scores": [*scores, *[0.0] * len(GEMMAS_OWN)],
        "scalars": {**spm.scalars, "add_space_prefix": False},
    }
    vocabulary = spm.model_copy(update=update)
    path = tmp_path_factory.mktemp("gemma") / "vocabulary.gguf"
    return vocabulary, load_tokenizer(write_vocabulary(path, vocabulary))


@pytest.fixture(scope="module")
def reference() -> dict[str, tokenizers.Tokenizer]:
    return {name: hugging_face(original(name)) for name in ("wordpiece", "unigram")}


@pytest.mark.parametrize("name", NAMES)
def test_pinned_texts_have_the_originals_ids(ours: dict[str, Tokenizer], name: str) -> None:
    for text, ids, expected in zip(texts(), ours[name].encode(texts()), original(name).ids, strict=True):
        assert ids == expected, ascii(text)


@pytest.mark.parametrize("name", ["wordpiece", "unigram"])
@settings(deadline=None, max_examples=50)
@given(text=TEXTS)
def test_any_text_has_the_ids_of_the_models_own_tokenizer_json(
    ours: dict[str, Tokenizer], reference: dict[str, tokenizers.Tokenizer], name: str, text: str
) -> None:
    (begin, *ids, end) = ours[name].encode([text])[0]
    assert ids == reference[name].encode(text).ids
    assert [begin, end] == ours[name].encode([""])[0]


@settings(deadline=None, max_examples=50)
@given(text=TEXTS)
@example(text=" " * 5)
@example(text=" " * 64)
def test_any_text_has_the_ids_of_sentencepiece_bpe_by_the_book(ours: dict[str, Tokenizer], text: str) -> None:
    assert ours["spm"].encode([text])[0][1:] == list(by_the_book(original("spm"), text))


@settings(deadline=None, max_examples=50)
@given(text=TEXTS)
def test_any_text_has_them_without_a_space_before_it_and_with_user_defined_tokens(
    like_gemma: tuple[Original, Tokenizer], text: str
) -> None:
    vocabulary, ours = like_gemma
    assert ours.encode([text])[0][1:] == list(by_the_book(vocabulary, text))


def test_pieces_of_one_score_that_are_no_run_are_refused(tmp_path: Path) -> None:
    spm, scores = original("spm"), list(original("spm").scores or [])
    first, second = (token for token, piece in enumerate(spm.tokens) if piece in {"▁t", "er"})
    scores[second] = scores[first]
    path = write_vocabulary(tmp_path / "tied.gguf", spm.model_copy(update={"scores": scores}))
    with pytest.raises(UnsupportedTokenizer, match="two pieces have one score"):
        load_tokenizer(path)


def test_pinned_texts_have_them_too(like_gemma: tuple[Original, Tokenizer]) -> None:
    vocabulary, ours = like_gemma
    for text, ids in zip(texts(), ours.encode(texts()), strict=True):
        assert ids[1:] == list(by_the_book(vocabulary, text)), ascii(text)


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=50)
@given(text=TEXTS)
def test_tokens_lie_in_the_text_one_behind_the_other(ours: dict[str, Tokenizer], name: str, text: str) -> None:
    (ids,) = ours[name].encode([text])
    found, offsets = ours[name].encode_with_offsets(text)
    assert found == ids
    assert ours[name].encode_with_offsets(text, 7) == (ids, offsets[:7])
    assert len(offsets) == len(ids)
    ends = [end for _, end in offsets]
    assert ends == sorted(ends)
    assert all(0 <= start <= end <= len(text) + 1 for start, end in offsets)


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_any_ids_have_a_text_without_what_is_around_it(
    ours: dict[str, Tokenizer], name: str, data: st.DataObject
) -> None:
    around = ours[name].encode([""])[0]
    assert ours[name].size == len(original(name).tokens)
    inside = st.integers(0, ours[name].size - 1).filter(lambda token: token not in around)
    ids = data.draw(st.lists(inside, max_size=20))
    text = ours[name].decode(ids)
    assert ours[name].decode([around[0], *ids, *around[1:]]) == text
    assert all(token < ours[name].size for token in ours[name].encode([text])[0])


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=50)
@given(text=TEXTS.filter(lambda text: not set(text) & {"<", "\uff1c", "\ufe64", SPACE}))
def test_the_text_of_a_texts_ids_has_the_same_ids(ours: dict[str, Tokenizer], name: str, text: str) -> None:
    """But for special tokens, which lose the spaces beside them, and for the sign that stands for a space."""
    ids = ours[name].encode([text])
    assert ours[name].encode([ours[name].decode(ids[0])]) == ids


def test_a_plain_text_is_spelt_by_its_tokens(ours: dict[str, Tokenizer]) -> None:
    for name in NAMES:
        text = "the quick brown fox jumps over the lazy dog"
        assert ours[name].decode(ours[name].encode([text])[0]) == text


def test_a_batch_has_the_ids_of_each_text_in_order(ours: dict[str, Tokenizer]) -> None:
    for name in NAMES:
        assert ours[name].encode(texts()) == [ours[name].encode([text])[0] for text in texts()]


def test_how_many_bytes_a_token_stands_for_depends_on_the_kind(ours: dict[str, Tokenizer]) -> None:
    assert (ours["wordpiece"].longest, ours["unigram"].longest) == (None, None)
    longest = ours["spm"].longest
    assert longest
    assert all(len(text.encode()) <= longest * len(ours["spm"].encode([text])[0]) for text in texts())


@pytest.mark.parametrize("name", NAMES)
def test_bos_and_eos_are_added_as_the_file_says(tmp_path: Path, name: str) -> None:
    vocabulary, path = original(name), tmp_path / "vocabulary.gguf"
    bare = load_tokenizer(write_vocabulary(path, vocabulary, add_bos_token=False, add_eos_token=False)).encode([""])[0]
    both = load_tokenizer(write_vocabulary(path, vocabulary, add_bos_token=True, add_eos_token=True)).encode([""])[0]
    before, after = vocabulary.scalars["bos_token_id"], vocabulary.scalars.get("eos_token_id", 3)
    assert both == [before, after]
    assert bare == (both if name == "wordpiece" else [])  # llama.cpp adds [CLS] and [SEP] whatever the file says


def test_a_cased_model_keeps_its_case_and_accents(tmp_path: Path) -> None:
    vocabulary = original("wordpiece")
    cased = load_tokenizer(write_vocabulary(tmp_path / "cased.gguf", vocabulary, **{"normalizer.lowercase": False}))
    assert cased.encode(["the"]) == load_tokenizer(write_vocabulary(tmp_path / "v.gguf", vocabulary)).encode(["THE"])
    assert cased.encode(["THE"]) != cased.encode(["the"])


def test_a_space_before_the_text_is_added_where_the_file_says(tmp_path: Path) -> None:
    vocabulary = original("spm")
    plain = load_tokenizer(write_vocabulary(tmp_path / "plain.gguf", vocabulary, add_space_prefix=False))
    prefixed = load_tokenizer(write_vocabulary(tmp_path / "prefixed.gguf", vocabulary))
    assert prefixed.encode(["the fox"]) == plain.encode([" the fox"])
    assert prefixed.decode(prefixed.encode(["the fox"])[0]) == "the fox"


def test_the_mask_that_sentencepieces_file_lacks_is_there(tmp_path: Path) -> None:
    whole = original("unigram")
    lacking = whole.model_copy(
        update={
            "tokens": [*whole.tokens[:-1], "[PAD250000]", "[PAD250001]"],
            "types": [*whole.types[:-1], 5, 5],
            "scores": [*(whole.scores or [])[:-1], -10000.0, -10000.0],
        }
    )
    ours = load_tokenizer(write_vocabulary(tmp_path / "lacking.gguf", lacking))
    assert ours.encode(texts()) == whole.ids


UNSUPPORTED = {
    "keeps spaces": ("unigram", {"remove_extra_whitespaces": False}, {}, "keeps spaces"),
    "no space before": ("unigram", {"add_space_prefix": False}, {}, "keeps spaces"),
    "no scores": ("unigram", {}, {"scores": None}, "scores: Field required"),
    "few scores": ("spm", {}, {"scores": [1.0]}, "1 scores for"),
    "no number": ("unigram", {}, {"scores": [float("nan")] * 999}, "finite score"),
    "no number, either": ("spm", {}, {"scores": [float("inf")] * 9999}, "not finite"),
    "a huge token": ("spm", {}, {"tokens": ["x" * 2**20, *original("spm").tokens[1:]]}, "1048576 characters is longer"),
    "no bytes": ("spm", {}, {"tokens": [*"abcd"], "types": [1] * 4, "scores": [0.0] * 4}, "256 byte tokens"),
    "no unknown": ("wordpiece", {"unknown_token_id": 99999}, {}, "not one of the 524 tokens"),
    "no end": ("unigram", {"eos_token_id": 99999}, {}, "BOS or EOS is not one of"),
    "twice": ("wordpiece", {}, {"tokens": [f"▁{'a' * (i % 7)}" for i in range(524)]}, "in the vocabulary twice"),
    "no unknown, either": ("unigram", {"unknown_token_id": 99999}, {}, "<unk> is not one of the 666 tokens"),
    "a filler inside": ("unigram", {}, {"types": [3, 3, 3, 2, 5] + [1] * 661}, "unused"),
}


@pytest.mark.parametrize(("name", "scalars", "changed", "words"), UNSUPPORTED.values(), ids=UNSUPPORTED)
def test_what_we_cannot_compute_is_refused_by_name(
    tmp_path: Path, name: str, scalars: dict[str, int], changed: dict[str, object], words: str
) -> None:
    vocabulary = original(name).model_copy(update=changed)
    with pytest.raises(UnsupportedTokenizer, match=words):
        load_tokenizer(write_vocabulary(tmp_path / "v.gguf", vocabulary, **scalars))


def by_the_book(vocabulary: Original, text: str) -> Iterator[int]:
    """SentencePiece's BPE: the pair that joins to the piece of the highest score is merged first, from the left."""
    ids = {token: i for i, token in enumerate(vocabulary.tokens)}
    special = sorted(
        (t for t, kind in zip(vocabulary.tokens, vocabulary.types, strict=True) if kind in {2, 3, 4}), key=len
    )
    for token in reversed(special):
        if token in text:
            before, _, after = text.partition(token)
            yield from (*by_the_book(vocabulary, before), ids[token], *by_the_book(vocabulary, after))
            return
    before = SPACE if text and vocabulary.scalars["add_space_prefix"] else ""
    parts, scores = list(before + text.replace(" ", SPACE)), vocabulary.scores or []
    pieces = {token: i for token, i in ids.items() if vocabulary.types[i] == 1}
    while pairs := [(-scores[pieces[a + b]], i, a + b) for i, (a, b) in enumerate(pairwise(parts)) if a + b in pieces]:
        _, at, joined = min(pairs)
        parts[at : at + 2] = [joined]
    for part in parts:
        yield from [ids[part]] if part in ids else [ids[f"<0x{byte:02X}>"] for byte in part.encode()]
