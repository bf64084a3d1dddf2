"""Pure: texts in the Unicode form that a model was trained with, in time linear in their length.

`unicodedata.normalize` sorts combining marks in quadratic time: 160 KB of them take 15 s. The normaliser of
`tokenizers` is linear, and the one that the original model's tokenizer runs, so its Unicode is the truth; but it is
slow and holds the interpreter's lock. So it gets only what is not normal, and of a long text a piece at a time.
`is_normalized` is linear, and of a newer Unicode: it never takes for normal what the other would change.
"""

from collections.abc import Iterator, Mapping
from unicodedata import combining, is_normalized, normalize

from tokenizers import normalizers

from proxy.contract.family import UnicodeForm

PIECE = 2**16  # characters: 3 ms of the lock, 20 if all of them are marks
LONGEST_RUN = 2**16  # marks on one letter that are sorted together; Unicode's own Stream-Safe Text Format allows 30
CONTEXT = 8  # characters before a border that can take part in composing the one after it
SHRINKS = 4  # at most so many times shorter is a text in its form, counted in bytes of UTF-8

_NORMALIZERS: Mapping[UnicodeForm, normalizers.Normalizer] = {"NFC": normalizers.NFC(), "NFKC": normalizers.NFKC()}


def normalized(text: str, form: UnicodeForm) -> str:
    """The text in that form. Exact but for a letter with more than LONGEST_RUN marks."""
    if len(text) <= PIECE or text.isascii():
        return text if is_normalized(form, text) else _NORMALIZERS[form].normalize_str(text)
    pieces = _pieces(text, form)
    return "".join(one if is_normalized(form, one) else _NORMALIZERS[form].normalize_str(one) for one in pieces)


def border(text: str, at: int, form: UnicodeForm) -> int:
    """The first place from `at` on where a text can be cut, and both parts be normalised by themselves."""
    last = min(len(text), at + LONGEST_RUN)
    while 0 < at < last and _joins(text[max(0, at - CONTEXT) : at], text[at], form):
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
