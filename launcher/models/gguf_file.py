"""Reads the header of a GGUF file, without its weights.

Format: ggml's docs/gguf.md. `gguf.GGUFReader` reads it too, but wraps every string of the vocabulary in arrays: 7 s for
151,936 tokens, against 0.1 s here.
"""

import mmap
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gguf import GGML_QUANT_SIZES, GGUF_DEFAULT_ALIGNMENT, GGUFValueType

from launcher.errors import DamagedFile, ModelError

Scalar = int | float | bool | str

# struct's codes for the value types of fixed size; a bool is one byte.
SCALAR_CODES = {
    GGUFValueType.UINT8: "<B",
    GGUFValueType.INT8: "<b",
    GGUFValueType.UINT16: "<H",
    GGUFValueType.INT16: "<h",
    GGUFValueType.UINT32: "<I",
    GGUFValueType.INT32: "<i",
    GGUFValueType.FLOAT32: "<f",
    GGUFValueType.BOOL: "<?",
    GGUFValueType.UINT64: "<Q",
    GGUFValueType.INT64: "<q",
    GGUFValueType.FLOAT64: "<d",
}
# Limits, because a file may come from anyone and claim anything. Real models have some forty keys, hundreds of tensors
# and half a million merges; the longest text is a chat template. ggml supports four dimensions.
MOST_PAIRS, MOST_TENSORS, MOST_TEXTS, MOST_DIMENSIONS = 2**12, 2**20, 2**22, 4
LONGEST_TEXT, LONGEST_KEPT = 2**20, 2**12
# Elements and bytes of a block, by the number of the tensor's type.
BLOCKS = {kind.value: sizes for kind, sizes in GGML_QUANT_SIZES.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """A GGUF file's header. `metadata` holds scalars; for an array or a long text, its length."""

    metadata: dict[str, Scalar]
    file_bytes: int
    needed_bytes: int  # where the last tensor ends: a shorter file is truncated


def read_header(path: Path) -> Header:
    """The header of the file. Raises DamagedFile if it is not that of a GGUF, ModelError if we cannot read it."""
    try:
        with path.open("rb") as file:
            if (magic := file.read(4)) != b"GGUF":
                raise DamagedFile(f"{path}: not a GGUF file: it starts with {magic!r}, not b'GGUF'; download it again")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Reader(data).header(path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}; check the path and its permissions") from error
    except (struct.error, ValueError, LookupError, ArithmeticError) as error:
        raise DamagedFile(f"{path}: its GGUF header is damaged or cut off ({error}); download it again") from error


class _Reader:
    """Reads values one after the other. A wrong length raises struct.error or ValueError."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = 4  # after the magic

    def header(self, path: Path) -> Header:
        version = self._int("<I")
        if version not in (2, 3):
            raise ModelError(f"{path}: GGUF version {version}, not 2 or 3; get a little-endian file of these versions")
        tensors, pairs = self._count("<Q", MOST_TENSORS, "tensors"), self._count("<Q", MOST_PAIRS, "keys")
        metadata: dict[str, Scalar] = {}
        for _ in range(pairs):
            key = self._text(LONGEST_KEPT)
            if key in metadata:
                raise ValueError(f"the key {key[:80]} is there twice")
            metadata[key] = self._value()
        weights = max(self._tensor_ends(tensors), default=0)
        if self._at > len(self._data):
            raise struct.error("a value runs past the end of the file")
        alignment = _alignment(metadata)
        needed = -(-self._at // alignment) * alignment + weights if tensors else self._at
        return Header(metadata=metadata, file_bytes=len(self._data), needed_bytes=needed)

    def _value(self) -> Scalar:
        kind = GGUFValueType(self._int("<I"))
        if kind is GGUFValueType.STRING:
            text = self._text()
            return text if len(text) <= LONGEST_KEPT else len(text)
        if kind is not GGUFValueType.ARRAY:
            return self._scalar(SCALAR_CODES[kind])
        of = GGUFValueType(self._int("<I"))
        if of is GGUFValueType.ARRAY:
            raise ValueError("an array of arrays, which no model has")
        if of is GGUFValueType.STRING:
            length = self._count("<Q", MOST_TEXTS, "texts in an array")
            self._skip_texts(length)
        else:
            length = self._int("<Q")
            self._at += length * struct.calcsize(SCALAR_CODES[of])
        return length

    def _skip_texts(self, count: int) -> None:
        # The hot loop: a vocabulary and its merges are 300,000 strings.
        data, at, size_at = self._data, self._at, struct.Struct("<Q").unpack_from
        for _ in range(count):
            at += 8 + size_at(data, at)[0]
        self._at = at

    def _tensor_ends(self, count: int) -> Iterator[int]:
        """Where each tensor ends, in bytes from the start of the weights."""
        for _ in range(count):
            self._text()
            elements = 1
            for _ in range(self._count("<I", MOST_DIMENSIONS, "dimensions of a tensor")):
                elements *= self._int("<Q")
            # A tensor type newer than our `gguf` counts as empty: llama-server decides whether it can read it.
            block, block_bytes = BLOCKS.get(self._int("<I"), (1, 0))
            yield self._int("<Q") + elements // block * block_bytes

    def _text(self, longest: int = LONGEST_TEXT) -> str:
        length = self._count("<Q", longest, "bytes in a text")
        text = self._data[self._at : self._at + length]
        if len(text) < length:
            raise struct.error("a text runs past the end of the file")
        self._at += length
        return text.decode("utf-8")

    def _count(self, code: str, most: int, what: str) -> int:
        count = self._int(code)
        if count > most:
            raise ValueError(f"{count} {what}, more than {most}")
        return count

    def _scalar(self, code: str) -> Scalar:
        value: Scalar = struct.unpack_from(code, self._data, self._at)[0]
        self._at += struct.calcsize(code)
        return value

    def _int(self, code: str) -> int:
        return int(self._scalar(code))


def _alignment(metadata: Mapping[str, Scalar]) -> int:
    """The alignment of the weights in bytes; llama.cpp accepts powers of two only."""
    given = metadata.get("general.alignment", GGUF_DEFAULT_ALIGNMENT)
    if not isinstance(given, int) or given <= 0 or given & (given - 1):
        raise ValueError(f"general.alignment is {given!r:.40}, not a power of two")
    return given
