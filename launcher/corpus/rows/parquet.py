"""Parquet files, read a few hundred rows at a time, and only the columns that are used."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.corpus.rows.records import CorpusRow, RawRow, UsedColumns, row_of
from launcher.corpus.rows.with_pyarrow import pyarrow
from launcher.errors import CorpusError

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import parquet as pq

_ROWS = 256  # at a time
_BUFFER = 2**20


@dataclass(frozen=True, slots=True)
class ParquetRows:
    path: Path
    columns: UsedColumns

    def records(self) -> Iterator[RawRow]:
        used = [name for name in (self.columns.text, self.columns.id, *self.columns.keep) if name is not None]
        with parquet_file(self.path) as file:
            for batch in file.iter_batches(batch_size=_ROWS, columns=list(dict.fromkeys(used)), use_threads=False):
                for record in batch.to_pylist():
                    text = record.get(self.columns.text or "")
                    yield RawRow(len(text) if isinstance(text, str) else 0, partial(self._row, record))

    def _row(self, record: dict[str, object], number: int) -> CorpusRow:
        return row_of(number, record, self.columns)


def parquet_file(path: Path) -> "pq.ParquetFile":
    """Raises CorpusError if it is not one."""
    lib = pyarrow(f"{path.name} is a parquet file")
    from pyarrow import parquet  # noqa: PLC0415 # an extra

    try:
        return parquet.ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER)
    except lib.ArrowInvalid as error:
        raise CorpusError(f"{path} is no parquet file: {error}") from error


def plain_types(path: Path, names: Sequence[str]) -> "dict[str, pa.DataType]":
    """The types of those columns whose values are kept as they are: neither nested ones nor dates."""
    types = pyarrow(f"{path.name} is a parquet file").types
    schema = parquet_schema(path)
    kept = (
        types.is_integer,
        types.is_floating,
        types.is_boolean,
        types.is_string,
        types.is_large_string,
        types.is_binary,
    )
    found = {name: schema.field(name).type for name in names}
    return {name: type_ for name, type_ in found.items() if any(is_of(type_) for is_of in kept)}


def parquet_schema(path: Path) -> "pa.Schema":
    """The columns and their types. Raises CorpusError."""
    with parquet_file(path) as file:
        return file.schema_arrow
