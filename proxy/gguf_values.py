"""The key/value head of a GGUF file, without its tensors.

Our own because `gguf.GGUFReader` takes 8.2 s for a vocabulary of 151,936 tokens; this takes 0.2 s.
Layout: docs/gguf.md of ggml. Versions 2 and 3, little-endian, as llama.cpp writes them.
"""

import mmap
import struct
from collections.abc import Collection
from pathlib import Path

Scalar = str | int | float | bool
Value = Scalar | list[Scalar]

_MAGIC = b"GGUF"
_STRING, _ARRAY = 8, 9
# GGUF's number of a type → its struct code: uint8, int8, uint16, int16, uint32, int32, float32, bool, …, double.
_CODES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


class BadGGUF(Exception):
    """The file is no GGUF that we read; `args[0]` says why."""


def read_values(path: Path, wanted: Collection[str]) -> dict[str, Value]:
    """The values of those of the `wanted` keys that the file has. Raises BadGGUF; OSError if it cannot be read."""
    with path.open("rb") as file:
        if file.read(4) != _MAGIC:
            raise BadGGUF(f"{path} does not begin with GGUF")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            try:
                return _Head(content).values(wanted)
            except (struct.error, UnicodeDecodeError, KeyError) as error:
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
        found = {}
        for _ in range(int(self._number("Q"))):
            key, value = self._string(), self._value(int(self._number("I")))
            if key in wanted:
                found[key] = value
        return found

    def _value(self, kind: int) -> Value:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            return self._array(int(self._number("I")), int(self._number("Q")))
        return self._number(_CODES[kind])

    def _array(self, kind: int, count: int) -> list[Scalar]:
        if kind == _STRING:
            return [self._string() for _ in range(count)]
        code = f"<{count}{_CODES[kind]}"
        start, self._at = self._at, self._at + struct.calcsize(code)
        return list(struct.unpack_from(code, self._content, start))

    def _number(self, code: str) -> int | float | bool:
        start, self._at = self._at, self._at + struct.calcsize(code)
        number: int | float | bool = struct.unpack_from("<" + code, self._content, start)[0]
        return number

    def _string(self) -> str:
        start = self._at + 8
        self._at = start + _LENGTH.unpack_from(self._content, self._at)[0]
        if self._at > len(self._content):
            raise BadGGUF("it ends within a string")
        return self._content[start : self._at].decode()


_LENGTH = struct.Struct("<Q")
