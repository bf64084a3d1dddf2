"""Late chunking: which tokens are a chunk's, and the mean over them, without any engine."""

import time
import unicodedata
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.contract.family import UnicodeForm
from proxy.embedding import chunk_means
from proxy.embedding.chunk_means import Document, Span
from proxy.tokens.unicode_form import border

CHUNKS = st.lists(st.text(alphabet="ab e\u0301\u0323é각\u1100\u1161\u11a8🎉", max_size=6), min_size=1, max_size=8)


def spans(chunks: Sequence[str], tokens: Sequence[str], prefix: str = "") -> list[Span | None]:
    """The spans of chunks in a document that is tokenised so."""
    document = chunk_means.document(prefix, chunks, None)
    assert document.text == "".join(tokens)
    return chunk_means.spans(document, offsets_of(np.cumsum([len(token) for token in tokens])))


def offsets_of(ends: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Of tokens one behind the other."""
    return np.stack([np.concatenate([[0], ends[:-1]]), ends], axis=1)


@pytest.mark.parametrize(
    ("prefix", "chunks", "tokens", "expected"),
    [
        pytest.param("", ["one two"], ["one", " two"], [(0, 2)], id="one chunk has all"),
        pytest.param("P: ", ["one", " two"], ["P", ":", " one", " two"], [(2, 3), (3, 4)], id="space of the prefix"),
        pytest.param("P: ", ["one ", "two"], ["P", ":", " one", " two"], [(2, 3), (3, 4)], id="where it ends"),
        pytest.param("", ["lo", "ng x"], ["long", " x"], [(0, 1), (0, 2)], id="inside a token: that token"),
        pytest.param("", ["l", "o", "n", "g"], ["long"], [(0, 1)] * 4, id="several inside one token"),
        pytest.param("", ["a", "", "b"], ["a", "b"], [(0, 1), None, (1, 2)], id="empty"),
        pytest.param("P", ["", "b"], ["P", "b"], [None, (1, 2)], id="empty first"),
    ],
)
def test_a_token_belongs_to_the_chunk_in_which_it_ends(
    prefix: str, chunks: list[str], tokens: list[str], expected: list[tuple[int, int] | None]
) -> None:
    assert spans(chunks, tokens, prefix) == expected


@given(st.text(max_size=5), CHUNKS, st.sampled_from(["NFC", "NFKC", None]))
def test_the_document_is_the_text_itself_and_the_borders_are_in_order(
    prefix: str, chunks: list[str], form: str | None
) -> None:
    document = chunk_means.document(prefix, chunks, form)  # type: ignore[arg-type] # one of the three
    text = prefix + "".join(chunks)
    assert document.text == (unicodedata.normalize(form, text) if form else text)  # type: ignore[arg-type]
    assert len(document.ends) == len(chunks) + 1
    assert list(document.ends) == sorted(document.ends)
    assert document.ends[-1] == len(document.text)


def test_what_unicode_composes_belongs_to_the_chunk_before() -> None:
    assert chunk_means.document("", ["cafe", "\u0301 au", " lait"], "NFC") == Document("café au lait", (0, 4, 7, 12))


@given(CHUNKS, st.sampled_from(["NFC", "NFKC"]), st.integers(0, 20))
def test_of_a_long_document_only_the_beginning_is_read(chunks: list[str], form: UnicodeForm, most: int) -> None:
    begun, text = chunk_means.document("P: ", chunks, form, most), ("P: " + "".join(chunks))
    assert begun.text == unicodedata.normalize(form, text[:most])
    assert begun.whole == (len(text) <= most)
    assert (begun.chunks, begun.ends[-1]) == (len(chunks), len(begun.text))
    if begun.text != text[:most] and border(text, min(most, len(text)), form) <= most:
        whole = chunk_means.document("P: ", chunks, form)
        assert begun.ends == tuple(min(end, len(begun.text)) for end in whole.ends)


def test_a_chunk_behind_the_beginning_is_not_an_empty_one() -> None:
    document = chunk_means.document("", ["one", "", " two", "", " three"], None)
    assert [document.cut(7).is_empty(chunk) for chunk in range(5)] == [False, True, False, False, False]
    assert [document.is_empty(chunk) for chunk in range(5)] == [False, True, False, True, False]


@pytest.mark.parametrize("marks", ["\u0301\u0323", "\u0323", "e\u0301"], ids=ascii)
def test_the_borders_of_chunks_of_marks_are_found_in_linear_time(marks: str) -> None:
    began = time.process_time()
    document = chunk_means.document("P: a", [marks * 150] * 1000, "NFC")
    assert list(document.ends) == sorted(document.ends)
    assert document.ends[-1] == len(document.text)
    assert time.process_time() - began < 2


@given(CHUNKS, st.data())
def test_every_chunk_has_the_exact_mean_of_its_tokens(chunks: list[str], data: st.DataObject) -> None:
    document = chunk_means.document("P: ", chunks, None)
    cuts = data.draw(st.sets(st.integers(1, len(document.text)), max_size=8))
    ends = np.array(sorted(cuts | {len(document.text)}))
    limit = data.draw(st.integers(1, len(ends)))
    states = np.random.default_rng(len(ends)).standard_normal((limit, 3))
    found = chunk_means.within(chunk_means.spans(document, offsets_of(ends)), limit)
    pooled = {n: states[:n].mean(axis=0) for n in chunk_means.prefix_lengths(found)}
    for (index, span), mean in zip(found.items(), chunk_means.means(found, pooled) if found else (), strict=True):
        assert chunks[index]
        assert 0 <= span.start < span.end <= limit
        np.testing.assert_allclose(mean, states[span.start : span.end].mean(axis=0), rtol=1e-4, atol=1e-5)
    own = [span for index, span in found.items() if ends[span.end - 1] <= document.ends[index + 1]]
    counted = [token for span in own for token in range(*span)]
    assert len(counted) == len(set(counted)), "a token is counted once, but for chunks inside it"


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        (["a ", "  ", "b"], [(1, 2), None, (2, 3)]),
        (["  ", "a", "   b "], [None, (1, 2), (2, 3)]),
        (["a   b", "  "], [(1, 3), None]),
        (["a ", " ", "\u0301 ", "b"], [(1, 2), None, None, (2, 3)]),
    ],
)
def test_a_chunk_whose_spaces_the_tokenizer_drops_has_no_token(
    chunks: list[str], expected: list[tuple[int, int] | None]
) -> None:
    """As WordPiece does: [CLS], the words, [SEP]."""
    document = chunk_means.document("", chunks, None)
    words = [(at, at + 1) for at, letter in enumerate(document.text) if letter in "ab"]
    behind = len(document.text) + 1
    offsets = np.array([(0, 0), *words, (behind, behind)])
    assert chunk_means.spans(document, offsets) == expected


def test_tokens_behind_the_limit_belong_to_no_chunk() -> None:
    assert chunk_means.within([Span(1, 4), Span(4, 6), None, Span(6, 9)], 5) == {0: (1, 4), 1: (4, 5)}
    assert chunk_means.prefix_lengths({0: Span(0, 4), 1: Span(4, 5)}) == [4, 5]


def test_rounding_is_refused_where_it_shows() -> None:
    """TF32 keeps 10 bits: half a thousandth of a sum over 8192 tokens is more than a chunk of 16."""
    found = {0: Span(2, 4096), 1: Span(4096, 4112)}
    assert not chunk_means.too_fine(found, 1e-6)
    assert chunk_means.too_fine(found, 5e-4) == {1: pytest.approx(0.992, abs=1e-3)}


@pytest.mark.parametrize(
    ("chunks", "tokens", "speeds", "expected"),
    [
        pytest.param(1, 8192, (300, 0, 0), False, id="one chunk: the beginning is the document"),
        pytest.param(4, 512, (300, 0, 10), False, id="not worth a start"),
        pytest.param(4, 8192, (300, 0, 10), True, id="a CPU: to compute costs more than to write"),
        pytest.param(8, 8192, (4000, 0, 10), False, id="a GPU: to write costs more"),
        pytest.param(64, 8192, (4000, 0, 10), True, id="a GPU, many chunks"),
        pytest.param(2, 1000, (300, 350, 0), True, id="seen to be quick, and up"),
        pytest.param(2, 1000, (0, 0, 10), False, id="nothing seen, few"),
        pytest.param(64, 1000, (0, 0, 10), True, id="nothing seen, many"),
    ],
)
def test_the_quicker_way_is_taken(chunks: int, tokens: int, speeds: tuple[float, float, float], expected: bool) -> None:
    beginnings = [tokens * (chunk + 1) // chunks for chunk in range(chunks)]
    pooled, by_token, start_s = speeds
    known = chunk_means.Speeds(pooled=pooled, by_token=by_token, start_s=start_s)
    assert chunk_means.by_token_is_quicker(beginnings, tokens, known) is expected
