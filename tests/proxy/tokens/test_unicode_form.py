"""Texts in the form that the original tokenizer gives them, in time that is linear in their length."""

import sys
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import normalizers

from proxy.contract.family import UnicodeForm
from proxy.tokens.gguf_tokenizer import PINNED_TEXTS
from proxy.tokens.unicode_form import PIECE, SHRINKS, border, normalized

FORMS: tuple[UnicodeForm, ...] = ("NFC", "NFKC")
ORIGINAL = {"NFC": normalizers.NFC(), "NFKC": normalizers.NFKC()}  # of Unicode 9, whatever Python's is
JOINING = [  # what any form changes, or joins with what is before
    c
    for c in map(chr, range(sys.maxunicode + 1))
    if unicodedata.combining(c) or unicodedata.decomposition(c) or "\u1100" <= c <= "\u11ff"
]
OLD = [c for c in JOINING if unicodedata.ucd_3_2_0.category(c) != "Cn"]  # as both have them
LETTERS = st.sampled_from(["a", "e", "か", "\u03b1", " "])
TEXTS = st.text(st.sampled_from(JOINING) | LETTERS, max_size=8)
OLD_TEXTS = st.text(st.sampled_from(OLD) | LETTERS, max_size=8)


@pytest.mark.parametrize("form", FORMS)
@given(OLD_TEXTS)
def test_the_form_is_unicodes_for_what_both_know(form: UnicodeForm, text: str) -> None:
    assert normalized(text, form) == unicodedata.normalize(form, text)


@pytest.mark.parametrize("form", FORMS)
@given(TEXTS | st.text())
def test_the_form_is_the_originals_for_every_text(form: UnicodeForm, text: str) -> None:
    assert normalized(text, form) == ORIGINAL[form].normalize_str(text)


@pytest.mark.parametrize("form", FORMS)
def test_every_character_and_pinned_text_has_the_originals_form(form: UnicodeForm) -> None:
    for text in (*JOINING, *PINNED_TEXTS, *(unicodedata.normalize("NFKD", text) for text in PINNED_TEXTS)):
        assert normalized(text, form) == ORIGINAL[form].normalize_str(text), ascii(text)


@pytest.mark.parametrize("form", FORMS)
def test_no_text_is_shorter_than_a_fourth_in_its_form(form: UnicodeForm) -> None:
    for text in (whole for c in JOINING for whole in (c, unicodedata.normalize("NFD", c))):
        assert len(text.encode()) <= SHRINKS * len(normalized(text, form).encode()), ascii(text)


@pytest.mark.parametrize("form", FORMS)
@given(TEXTS, st.integers(0, 8))
def test_a_text_can_be_cut_at_a_border(form: UnicodeForm, text: str, at: int) -> None:
    end = border(text, min(at, len(text)), form)
    assert normalized(text, form) == normalized(text[:end], form) + normalized(text[end:], form)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "piece", ["e\u0301", "a\u0323\u0302 ", "\u1112\u1161\u11ab", "か\u3099", "한", "ｶﾞ", "aé"], ids=ascii
)
@pytest.mark.parametrize("shift", range(4))
def test_a_long_text_has_the_form_that_it_has_as_one(form: UnicodeForm, piece: str, shift: int) -> None:
    text = "x" * shift + piece * (PIECE // 2)
    assert normalized(text, form) == unicodedata.normalize(form, text)


@pytest.mark.parametrize("marks", ["\u0301\u0323", "\u0301", "\u0344", "a\u0328\u0301"], ids=ascii)
def test_many_marks_take_no_longer_than_as_many_letters(marks: str) -> None:
    """`unicodedata.normalize` takes minutes for the first of these."""
    text, began = "a" + marks * 150_000, time.process_time()
    normalized(text, "NFC")
    border(text, 1, "NFC")
    assert time.process_time() - began < 2
