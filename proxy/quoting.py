"""Pure: quotes what a client sent in messages and logs: short, however large or deep it is."""

import difflib
import itertools
import reprlib
from collections.abc import Iterable, Mapping

MAX_LENGTH = 80  # characters


def shown(given: object) -> str:
    """For a field of its own: a text stands without quotes."""
    if isinstance(given, str):
        return given[:MAX_LENGTH].encode(errors="replace").decode()  # a header can hold bytes that are not text
    return quoted(given)


def quoted(given: object) -> str:
    """For use inside a sentence: a text stands in quotes."""
    return _SHORT.repr(given)[:MAX_LENGTH]


def did_you_mean(given: object, names: Iterable[str]) -> str:
    """`; did you mean 'NAME'?` if one of the names is similar to the given one, else nothing."""
    text = given.lower() if isinstance(given, str) and len(given) < MAX_LENGTH else ""
    return "".join(f"; did you mean {name!r}?" for name in difflib.get_close_matches(text, names, n=1, cutoff=0.75))


class _Short(reprlib.Repr):
    """As reprlib's, but with JSON's literals, and without sorting every key of a large object."""

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
