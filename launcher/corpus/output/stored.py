"""What a part's output is, whatever file it is in, and the number types that vectors are stored as."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from launcher.arrays import F32
from launcher.corpus.rows.records import CellValue
from proxy.bulk.ledger import PartLedger, RowRange
from proxy.bulk.runner import RowError

Stored = NDArray[np.generic]  # of one of the types below


class OutputFormat(StrEnum):
    PARQUET = "parquet"
    NPY = "npy"
    JSONL = "jsonl"
    LANCE = "lance"


# The folder whose files say which parts are done, and their suffix.
LEDGERS: Mapping[OutputFormat, tuple[str, str]] = {
    OutputFormat.PARQUET: ("vectors", ".parquet"),
    OutputFormat.NPY: ("ids", ".jsonl"),
    OutputFormat.JSONL: ("vectors", ".jsonl"),
    OutputFormat.LANCE: ("fragments", ".json"),
}


class VectorType(StrEnum):
    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT8 = "int8"  # each vector is scaled so that its largest value is 127 or -127: cosines stay, lengths do not
    UBINARY = "ubinary"  # a bit per dimension, set where the value is positive; eight in a uint8, the first one highest

    @property
    def numpy(self) -> np.dtype[np.generic]:
        return np.dtype("uint8" if self is VectorType.UBINARY else self.value)

    def width(self, dimensions: int) -> int:
        """How many numbers a stored vector has."""
        return -(-dimensions // 8) if self is VectorType.UBINARY else dimensions

    def stored(self, vectors: F32) -> Stored:
        """float32 vectors as this type, shape (n, width). A vector that is not finite becomes zeros as integers."""
        if self is VectorType.FLOAT32:
            return vectors
        if self is VectorType.FLOAT16:
            return vectors.astype(np.float16)
        finite = np.nan_to_num(vectors)
        if self is VectorType.UBINARY:
            return np.packbits(finite > 0, axis=1)
        largest = np.abs(finite).max(axis=1, keepdims=True, initial=0)
        return np.rint(finite * (127 / np.where(largest > 0, largest, 1))).astype(np.int8)

    def floats(self, stored: Stored, dimensions: int) -> F32:
        """Stored vectors as float32, to compare directions; bits as 1 and -1."""
        if self is VectorType.UBINARY:
            bits = np.unpackbits(stored.astype(np.uint8, copy=False), axis=1, count=dimensions)
            return bits.astype(np.float32) * 2 - 1
        return stored.astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedPart:
    """A part as it is written. `errors`: by its place in the part, why a row has no vector; its vector is not used."""

    rows: RowRange
    ids: Sequence[CellValue]
    kept: Mapping[str, Sequence[CellValue]]
    vectors: Stored
    errors: Mapping[int, RowError]


@dataclass(frozen=True, slots=True)
class StoredPart:
    """A part as it was read: of a row without a vector, the vector is anything."""

    ids: Sequence[CellValue]
    vectors: Stored


def part_ledger(folder: Path, format_: OutputFormat) -> PartLedger:
    """The ledger of a job in that folder."""
    name, suffix = LEDGERS[format_]
    return PartLedger(folder / name, suffix)


class PartWriter(Protocol):
    """One of the formats. A part is done when it is in the ledger."""

    ledger: PartLedger

    def write(self, part: FinishedPart) -> None:
        """Write the part, or write it again. Raises OSError."""

    def read(self, rows: RowRange) -> StoredPart:
        """A part that is done. Raises CorpusError if it is damaged."""

    def finish(self) -> None:
        """Do what is left when all parts are done."""
