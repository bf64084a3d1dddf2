"""Converts texts to the Unicode form that a model was trained with, in time linear in their length. Pure.

`unicodedata.normalize` sorts combining marks in quadratic time: 160 KB of them take 15 s. The normaliser of
`tokenizers` is linear, and the one that the original model's tokenizer runs, so its Unicode is the reference;
but it is slow and holds the GIL. So it gets only text that is not in normal form, and long text a piece at a time.
`is_normalized` is linear, and of a newer Unicode: it never accepts what the other would change.
"""

from collections.abc import Iterator, Mapping
from unicodedata import combining, is_normalized, normalize

from tokenizers import normalizers

from proxy.contract.family import UnicodeForm

PIECE = 2**16  # characters: 3 ms of the GIL, 20 if all of them are marks
LONGEST_RUN = 2**16  # marks on one letter that are sorted together; Unicode's own Stream-Safe Text Format allows 30
_CONTEXT = 8  # characters before a border that can take part in composing the one after it
SHRINKS = 4  # the form may make a text so many times shorter at most, in bytes of UTF-8

_NORMALIZERS: Mapping[UnicodeForm, normalizers.Normalizer] = {"NFC": normalizers.NFC(), "NFKC": normalizers.NFKC()}


def normalized(text: str, form: UnicodeForm) -> str:
    """The text in that form. Exact, except for a letter with more than LONGEST_RUN marks."""
    if len(text) <= PIECE or text.isascii():
        return text if is_normalized(form, text) else _NORMALIZERS[form].normalize_str(text)
    pieces = _pieces(text, form)
    return "".join(one if is_normalized(form, one) else _NORMALIZERS[form].normalize_str(one) for one in pieces)


def border(text: str, at: int, form: UnicodeForm) -> int:
    """The first place from `at` on where the text can be cut so that both parts can be normalised on their own."""
    last = min(len(text), at + LONGEST_RUN)
    while 0 < at < last and _joins(text[max(0, at - _CONTEXT) : at], text[at], form):
        at += 1
    return at


def _pieces(text: str, form: UnicodeForm) -> Iterator[str]:
    start = 0
    while start < len(text):
        end = border(text, min(start + PIECE, len(text)), form)
        yield text[start:end]
        start = end


def _joins(before: str, after: str, form: UnicodeForm) -> bool:
    if combining(after):
        return True
    apart = normalize(form, before) + normalize(form, after)
    return not after.isascii() and normalize(form, before + after) != apart
