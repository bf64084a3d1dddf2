"""Pure: what a caller sent, as it is told back: short, however large or deep it is."""

import difflib
import itertools
import reprlib
from collections.abc import Iterable, Mapping

MOST = 80  # characters


def shown(given: object) -> str:
    """By itself: a text as it is."""
    return (
        given[:MOST].encode(errors="replace").decode() if isinstance(given, str) else quoted(given)
    )  # a header need not be text


def quoted(given: object) -> str:
    """In a sentence: a text is in quotes."""
    return _SHORT.repr(given)[:MOST]


def did_you_mean(given: object, names: Iterable[str]) -> str:
    """`; did you mean 'NAME'?` if one of the names is like what came, else nothing."""
    text = given.lower() if isinstance(given, str) and len(given) < MOST else ""
    return "".join(f"; did you mean {name!r}?" for name in difflib.get_close_matches(text, names, n=1, cutoff=0.75))


class _Short(reprlib.Repr):
    """As reprlib's, but with JSON's words, and without sorting all that a large object has."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 60

    def repr_dict(self, x: Mapping[object, object], level: int) -> str:
        return super().repr_dict(dict(itertools.islice(x.items(), self.maxdict + 1)), level)

    def repr_bool(self, x: bool, _: int) -> str:
        return str(x).lower()

    def repr_NoneType(self, _: None, __: int) -> str:  # noqa: N802 # named for the type
        return "null"


_SHORT = _Short()
