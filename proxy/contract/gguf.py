"""The key/value head of a GGUF file, without its tensors.

Our own because `gguf.GGUFReader` takes 8.2 s for a vocabulary of 151,936 tokens; this takes 0.2 s.
Layout: docs/gguf.md of ggml. Versions 2 and 3, little-endian, as llama.cpp writes them. A file may come from a
stranger: what is not wanted is skipped, and whatever it claims, a value takes no more memory than the limits below.
"""

import mmap
import struct
from collections.abc import Collection
from pathlib import Path

Scalar = str | int | float | bool
Value = Scalar | list[Scalar]

MOST_PAIRS = 2**16  # real models have fewer than a hundred
MOST_ITEMS = 2**20  # of one array; the largest vocabularies have some 300,000 tokens and half a million merges
MOST_BYTES = 2**26  # of one value, or all texts of one array; a vocabulary has some 3 MB

_MAGIC = b"GGUF"
_STRING, _ARRAY = 8, 9
# GGUF's number of a type → its struct code: uint8, int8, uint16, int16, uint32, int32, float32, bool, …, double.
_CODES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_LENGTH = struct.Struct("<Q")


class BadGGUF(Exception):
    """Not a GGUF file that we can read; `args[0]` says why."""


def read_values(path: Path, wanted: Collection[str]) -> dict[str, Value]:
    """The values of those of the `wanted` keys that the file has. Raises BadGGUF; OSError if it cannot be read."""
    with path.open("rb") as file:
        if file.read(4) != _MAGIC:
            raise BadGGUF(f"{path} does not begin with GGUF")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            try:
                return _Head(content).values(wanted)
            except BadGGUF as error:
                raise BadGGUF(f"{path}: {error}") from error
            except (struct.error, UnicodeDecodeError, LookupError, ArithmeticError, ValueError) as error:
                raise BadGGUF(f"{path}: damaged, or of a kind we do not know: {error!r}") from error


class _Head:
    """A place in the file that moves on with each read."""

    def __init__(self, content: mmap.mmap) -> None:
        self._content = content
        self._at = len(_MAGIC)

    def values(self, wanted: Collection[str]) -> dict[str, Value]:
        version = self._number("I")
        if version not in {2, 3}:  # also what a big-endian file looks like
            raise BadGGUF(f"GGUF version {version}")
        self._number("Q")  # tensors
        pairs = self._count(MOST_PAIRS, "keys")
        found: dict[str, Value] = {}
        for _ in range(pairs):
            key, kind = self._string(), int(self._number("I"))
            if key not in wanted:
                self._skip(kind)
            elif key in found:
                raise BadGGUF(f"the key {key} is there twice")
            else:
                found[key] = self._value(kind)
        return found

    def _value(self, kind: int) -> Value:
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            return self._number(_CODES[kind])
        of, count = int(self._number("I")), self._count(MOST_ITEMS, "values in an array")
        if of == _STRING:
            return self._strings(count)
        code = f"<{count}{_CODES[of]}"
        return list(struct.unpack_from(code, self._content, self._moved(struct.calcsize(code))))

    def _strings(self, count: int) -> list[Scalar]:
        start, found = self._at, list[Scalar]()
        for _ in range(count):
            found.append(self._string())
            if self._at - start > MOST_BYTES:
                raise BadGGUF(f"the texts of an array have more than {MOST_BYTES} bytes")
        return found

    def _skip(self, kind: int) -> None:
        if kind == _STRING:
            self._moved(int(self._number("Q")))
        elif kind != _ARRAY:
            self._moved(struct.calcsize(_CODES[kind]))
        else:
            of, count = int(self._number("I")), int(self._number("Q"))
            if of != _STRING:
                self._moved(count * struct.calcsize(_CODES[of]))
            elif count > MOST_ITEMS:
                raise BadGGUF(f"{count} texts in an array, more than {MOST_ITEMS}")
            else:
                for _ in range(count):
                    self._moved(int(self._number("Q")))

    def _count(self, most: int, what: str) -> int:
        count = int(self._number("Q"))
        if count > most:
            raise BadGGUF(f"{count} {what}, more than {most}")
        return count

    def _number(self, code: str) -> int | float | bool:
        start = self._moved(struct.calcsize(code))
        number: int | float | bool = struct.unpack_from("<" + code, self._content, start)[0]
        return number

    def _string(self) -> str:
        (length,) = _LENGTH.unpack_from(self._content, self._moved(_LENGTH.size))
        if length > MOST_BYTES:
            raise BadGGUF(f"a text of {length} bytes, more than {MOST_BYTES}")
        start = self._moved(length)
        return self._content[start : self._at].decode()

    def _moved(self, length: int) -> int:
        """Where we were, before moving on by that many bytes."""
        start, self._at = self._at, self._at + length
        if self._at > len(self._content):
            raise BadGGUF("it ends within a value")
        return start
