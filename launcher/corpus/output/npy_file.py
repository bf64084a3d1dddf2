"""Vectors as one .npy file of all rows, written in place; a part is done when the file with its ids is there."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import orjson

from launcher.corpus.output.stored import FinishedPart, OutputFormat, StoredPart, VectorType, part_ledger
from launcher.corpus.rows.records import CellValue
from launcher.errors import CorpusError
from proxy.bulk.durable import write_durably
from proxy.bulk.ledger import PartLedger, RowRange, files_of


@dataclass(slots=True, kw_only=True)
class NpyFile:
    """`first_rows`: of each input, the number of its first row in the whole corpus, and last the number of all rows."""

    folder: Path
    first_rows: Sequence[int]
    vector_type: VectorType
    width: int
    ledger: PartLedger = field(init=False)
    _data_at: int = field(init=False)

    def __post_init__(self) -> None:
        self.ledger = part_ledger(self.folder, OutputFormat.NPY)
        self._data_at = self._allocated()

    def write(self, part: FinishedPart) -> None:
        vectors = part.vectors.copy()
        vectors[list(part.errors)] = 0 if vectors.dtype.kind in "iu" else np.nan
        with self._path.open("r+b") as file:
            file.seek(self._offset(part.rows))
            vectors.tofile(file)
            os.fsync(file.fileno())
        self.ledger.commit(part.rows, partial(_write_ids, part))

    def read(self, rows: RowRange) -> StoredPart:
        try:
            lines = self.ledger.path(rows).read_bytes().splitlines()
            ids = [orjson.loads(line)["id"] for line in lines]
            with self._path.open("rb") as file:
                file.seek(self._offset(rows))
                content = file.read(rows.rows * self._row_bytes)
            vectors = np.frombuffer(content, dtype=self.vector_type.numpy).reshape(rows.rows, self.width)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CorpusError(f"{self.ledger.path(rows)} or {self._path} is damaged: {error}") from error
        return StoredPart(ids, vectors.copy())

    def finish(self) -> None:
        """Write ids.jsonl: line n is about row n of vectors.npy."""
        write_durably(self.folder / "ids.jsonl", self._join_ids)

    @property
    def _path(self) -> Path:
        return self.folder / "vectors.npy"

    @property
    def _row_bytes(self) -> int:
        return self.width * self.vector_type.numpy.itemsize

    def _offset(self, rows: RowRange) -> int:
        return self._data_at + (self.first_rows[rows.source] + rows.start) * self._row_bytes

    def _allocated(self) -> int:
        """Make the file of its full size, with holes, if it is not there. Returns where the vectors begin in it."""
        if not self._path.exists():
            write_durably(self._path, self._write_empty)
        with self._path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            if version != (1, 0):
                raise CorpusError(f"{self._path} was not written by this command: move it away")
            np.lib.format.read_array_header_1_0(file)
            return file.tell()

    def _write_empty(self, file: BinaryIO) -> None:
        shape = (self.first_rows[-1], self.width)
        description = np.lib.format.dtype_to_descr(self.vector_type.numpy)
        np.lib.format.write_array_header_1_0(file, {"descr": description, "fortran_order": False, "shape": shape})
        file.truncate(file.tell() + self.first_rows[-1] * self._row_bytes)

    def _join_ids(self, file: BinaryIO) -> None:
        for _, path in files_of(self.ledger.folder, self.ledger.suffix):
            with path.open("rb") as ids:
                shutil.copyfileobj(ids, file)


def _write_ids(part: FinishedPart, file: BinaryIO) -> None:
    file.writelines(orjson.dumps(row_facts(part, row)) + b"\n" for row in range(part.rows.rows))


def row_facts(part: FinishedPart, row: int) -> dict[str, object]:
    """A row's id, its kept columns, and its error if it has one, for a line of JSON."""
    facts: dict[str, object] = {"id": _json_value(part.ids[row])}
    facts |= {name: _json_value(values[row]) for name, values in part.kept.items()}
    if error := part.errors.get(row):
        facts["error"] = {"code": error.code, "message": error.message}
    return facts


def _json_value(value: CellValue) -> CellValue:
    return value.hex() if isinstance(value, bytes) else value
