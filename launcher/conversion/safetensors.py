"""Reads the tensors of a safetensors file, one by one: only the parts that are needed are read.

The format: eight bytes with the header's length N, little-endian; N bytes of JSON, which map a tensor's name to its
`dtype`, `shape` and `data_offsets` (from the header's end); the tensors' bytes. https://huggingface.co/docs/safetensors
"""

import math
from dataclasses import dataclass
from typing import Annotated, Protocol

import numpy as np
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from launcher.arrays import F32
from launcher.errors import ModelError

_Size = Annotated[int, Field(ge=0)]

MAX_HEADER_BYTES = 16 * 2**20  # a quarter of a MiB is usual
ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2}


class ReadableFile(Protocol):
    """A file whose parts can be read; as text, its name for messages."""

    @property
    def size(self) -> int: ...

    def read(self, start: int, length: int) -> bytes:
        """Exactly those bytes. Raises ModelError, also for a range outside the file."""
        ...


@dataclass(frozen=True, slots=True)
class InMemoryFile:
    """A file whose content is in memory."""

    name: str
    content: bytes

    @property
    def size(self) -> int:
        return len(self.content)

    def read(self, start: int, length: int) -> bytes:
        if not 0 <= start <= start + length <= self.size:
            raise ModelError(f"{self} has {self.size} bytes, but {start} to {start + length} are requested")
        return self.content[start : start + length]

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """The location of a tensor; `start` counts from the beginning of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    length: int


class _Entry(BaseModel):
    dtype: str
    shape: tuple[_Size, ...]
    data_offsets: tuple[_Size, _Size]


_HEADER = TypeAdapter(dict[str, _Entry | dict[str, str]])  # `__metadata__` maps text to text


def tensors(file: ReadableFile) -> dict[str, Tensor]:
    """Each tensor of the file by its name. Reads only the header. Raises ModelError."""
    length = int.from_bytes(file.read(0, 8), "little")
    if not 0 < length <= min(MAX_HEADER_BYTES, file.size - 8):
        raise ModelError(f"{file} is not a safetensors file: its header would have {length} bytes; name another file")
    try:
        header = _HEADER.validate_json(file.read(8, length))
    except ValidationError as error:
        raise ModelError(f"{file}: its header is not that of a safetensors file; start again") from error
    entries = {name: entry for name, entry in header.items() if isinstance(entry, _Entry)}
    return {name: _located(name, entry, 8 + length) for name, entry in entries.items()}


def array(file: ReadableFile, tensor: Tensor) -> tuple[F32, bytes]:
    """The tensor's values as float32, and its raw bytes. Raises ModelError, also for a wrong length."""
    item = ITEM_BYTES.get(tensor.dtype)
    if item is None:
        raise ModelError(f"{tensor.name} in {file} is of type {tensor.dtype}; supported are {', '.join(ITEM_BYTES)}")
    if tensor.length != item * math.prod(tensor.shape):
        raise ModelError(
            f"{tensor.name} in {file} has {tensor.length} bytes, which do not fit {tensor.shape} of {tensor.dtype}: "
            "the file is damaged, start again"
        )
    content = file.read(tensor.start, tensor.length)
    return as_float32(content, tensor.dtype).reshape(tensor.shape), content


def as_float32(content: bytes, dtype: str) -> F32:
    """The exact values of little-endian bytes. BF16 is the upper half of a float32."""
    if dtype == "BF16":
        return (np.frombuffer(content, "<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(content, "<f4" if dtype == "F32" else "<f2").astype(np.float32)


def _located(name: str, entry: _Entry, base: int) -> Tensor:
    begin, end = entry.data_offsets
    return Tensor(name=name, dtype=entry.dtype, shape=entry.shape, start=base + begin, length=end - begin)
