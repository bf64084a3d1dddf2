"""The header of a GGUF file, read without its weights.

Our own reader because `gguf.GGUFReader` wraps every string of the vocabulary in arrays: 7 to 8 s for 151,936 tokens,
against 0.1 s here for a vocabulary that is skipped and 0.2 s for one that is kept.
Layout: docs/gguf.md of ggml. Versions 2 and 3, little-endian, as llama.cpp writes them. A file may come from a
stranger: whatever it claims, reading it takes no more time and memory than the limits below allow.
"""

import mmap
import struct
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gguf import GGML_QUANT_SIZES, GGUF_DEFAULT_ALIGNMENT

Scalar = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Omitted:
    """A value that was not kept: an array of so many values, or a text of so many bytes."""

    length: int


Value = Scalar | list[Scalar] | Omitted

MAX_KEYS = 2**12  # real models have some forty
MAX_TENSORS = 2**16  # real models have hundreds
MAX_DIMENSIONS = 4  # of a tensor, in ggml
MAX_ITEMS = 2**20  # of an array that is kept or has texts; the largest vocabularies have half a million merges
MAX_TEXT_BYTES = 2**20  # the longest text is a chat template
MAX_KEPT_BYTES = 2**12  # of a text that is kept without being wanted
MAX_KEPT_ITEMS = 2**10  # of an array of numbers: a value per layer
MAX_KEPT = 2**16  # of all arrays of numbers together; those after that are not kept
MAX_GGUF_HEADER_BYTES = 2**26  # real models have 20 MB at most, nearly all of it vocabulary and merges

_MAGIC = b"GGUF"
_STRING, _ARRAY = 8, 9
# GGUF's number of a type → its struct code: uint8, int8, uint16, int16, uint32, int32, float32, bool, …, double.
_CODES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_LENGTH = struct.Struct("<Q")
# Elements and bytes of a block, by the number of the tensor's type.
_BLOCKS = {kind.value: sizes for kind, sizes in GGML_QUANT_SIZES.items()}


class BadGGUF(Exception):
    """Not a GGUF file that we can read; `args[0]` says why."""


class UnknownVersion(BadGGUF):
    """A GGUF of another version or byte order: downloading it again would not help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a GGUF file says of itself.

    `metadata` holds the scalars, short arrays of numbers and what was wanted; anything else is Omitted.
    """

    metadata: Mapping[str, Value]
    file_bytes: int
    needed_bytes: int  # where the last tensor ends: a shorter file is truncated


def read_header(path: Path, wanted: Collection[str] = ()) -> Header:
    """The header of the file, with the arrays and long texts of the `wanted` keys.

    Raises BadGGUF, which names the file; OSError if it cannot be read.
    """
    with path.open("rb") as file:
        if (magic := file.read(4)) != _MAGIC:
            raise BadGGUF(f"{path}: not a GGUF file: it starts with {magic!r}, not {_MAGIC!r}")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            try:
                return _Reader(content, wanted).header()
            except UnknownVersion as error:
                raise UnknownVersion(f"{path}: {error}") from error
            except (struct.error, ValueError, LookupError, ArithmeticError) as error:
                raise BadGGUF(f"{path}: its GGUF header is damaged or cut off ({error})") from error


class _Reader:
    """A position in the file that advances with every value read. A wrong length raises struct.error or ValueError."""

    def __init__(self, content: mmap.mmap, wanted: Collection[str]) -> None:
        self._content = content
        self._wanted = wanted
        self._at = len(_MAGIC)
        self._kept = 0

    def header(self) -> Header:
        version = self._number("I")
        if version not in {2, 3}:  # also what a big-endian file looks like
            raise UnknownVersion(f"GGUF version {version}, not 2 or 3; get a little-endian file of these versions")
        tensors, keys = self._count("Q", MAX_TENSORS, "tensors"), self._count("Q", MAX_KEYS, "keys")
        metadata: dict[str, Value] = {}
        for _ in range(keys):
            key = self._text(MAX_KEPT_BYTES)
            if key in metadata:
                raise ValueError(f"the key {key[:80]!r} is there twice")
            metadata[key] = self._value(keep=key in self._wanted)
        weights = max(self._tensor_ends(tensors), default=0)
        alignment = _alignment(metadata)
        needed = -(-self._at // alignment) * alignment + weights if tensors else self._at
        return Header(metadata=metadata, file_bytes=len(self._content), needed_bytes=needed)

    def _value(self, *, keep: bool) -> Value:
        kind = self._integer("I")
        if kind == _STRING:
            text = self._text()
            return text if keep or len(text) <= MAX_KEPT_BYTES else Omitted(len(text))
        if kind != _ARRAY:
            return self._number(_CODES[kind])
        of, count = self._integer("I"), self._integer("Q")
        if (keep or of == _STRING) and count > MAX_ITEMS:
            raise ValueError(f"{count} values in an array, more than {MAX_ITEMS}")
        if of == _STRING:
            return self._texts(count) if keep else self._skip_texts(count)
        keep = keep or (count <= MAX_KEPT_ITEMS and self._kept + count <= MAX_KEPT)
        self._kept += count if keep else 0
        code = f"<{count}{_CODES[of]}" if keep else "<" + _CODES[of]
        start = self._advance(struct.calcsize(code) if keep else count * struct.calcsize(code))
        return list(struct.unpack_from(code, self._content, start)) if keep else Omitted(count)

    def _texts(self, count: int) -> list[Scalar]:
        return [self._text() for _ in range(count)]

    def _skip_texts(self, count: int) -> Omitted:
        # The one hot loop: a vocabulary and its merges are 300,000 strings.
        content, at, length_at = self._content, self._at, _LENGTH.unpack_from
        for _ in range(count):
            at += 8 + length_at(content, at)[0]
        self._advance(at - self._at)
        return Omitted(count)

    def _tensor_ends(self, count: int) -> Iterator[int]:
        """Where each tensor ends, in bytes from the start of the weights."""
        for _ in range(count):
            self._text()
            elements = 1
            for _ in range(self._count("I", MAX_DIMENSIONS, "dimensions of a tensor")):
                elements *= self._integer("Q")
            # A tensor type newer than our `gguf` counts as empty: llama-server will judge it.
            block, block_bytes = _BLOCKS.get(self._integer("I"), (1, 0))
            yield self._integer("Q") + elements // block * block_bytes

    def _text(self, longest: int = MAX_TEXT_BYTES) -> str:
        start = self._advance(self._count("Q", longest, "bytes in a text"))
        return self._content[start : self._at].decode()

    def _count(self, code: str, most: int, what: str) -> int:
        count = self._integer(code)
        if count > most:
            raise ValueError(f"{count} {what}, more than {most}")
        return count

    def _integer(self, code: str) -> int:
        return int(self._number(code))

    def _number(self, code: str) -> int | float | bool:
        start = self._advance(struct.calcsize("<" + code))
        number: int | float | bool = struct.unpack_from("<" + code, self._content, start)[0]
        return number

    def _advance(self, length: int) -> int:
        """Move on by that many bytes; returns the position before. Raises ValueError past the end of the file."""
        start, self._at = self._at, self._at + length
        if self._at > len(self._content):
            raise ValueError("a value runs past the end of the file")
        if self._at > MAX_GGUF_HEADER_BYTES:
            raise ValueError(f"it has more than {MAX_GGUF_HEADER_BYTES} bytes")
        return start


def _alignment(metadata: Mapping[str, Value]) -> int:
    """The multiple of bytes at which the weights begin; llama.cpp takes powers of two only."""
    given = metadata.get("general.alignment", GGUF_DEFAULT_ALIGNMENT)
    if not isinstance(given, int) or given <= 0 or given & (given - 1):
        raise ValueError(f"general.alignment is {given!r:.40}, not a power of two")
    return given
