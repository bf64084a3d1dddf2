"""A row of a corpus, and how the rows of a file are cut into parts: the same way each time the file is read."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import orjson

from proxy.bulk.ledger import RowRange
from proxy.bulk.runner import RowError

MAX_PART_BYTES = 16 * 2**20  # a part ends before its texts have more, however few rows it has then
MAX_RECORD_BYTES = 16 * 2**20  # of one row in a file; more is an error row
CellValue = str | int | float | bool | bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class UsedColumns:
    """Which fields of a row are used. `text` is None for files without fields, whose rows are texts."""

    text: str | None = None
    id: str | None = None
    keep: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CorpusRow:
    """`text` is None exactly if there is an `error`."""

    id: CellValue
    text: str | None
    error: RowError | None = None
    kept: Mapping[str, CellValue] = field(default_factory=dict)


class RawRow(NamedTuple):
    """A row that is read but not decoded. `decode` gets its number, which is its id if it has no other."""

    bytes: int
    decode: Callable[[int], CorpusRow]


class RowReader(Protocol):
    """The rows of one file."""

    def records(self) -> Iterator[RawRow]:
        """Raises CorpusError, OSError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cutting:
    """How one input is cut: `first_number` is the number of its first row in the whole corpus."""

    source: int
    first_number: int
    rows: int

    def parts(self, reader: RowReader, done: Callable[[RowRange], bool]) -> Iterator[tuple[RowRange, list[CorpusRow]]]:
        """Each part that is not done, with its rows."""
        start = 0
        for records in self._cut(reader.records()):
            rows = RowRange(self.source, start, start + len(records))
            if not done(rows):
                yield rows, [record.decode(self.first_number + row) for row, record in enumerate(records, start)]
            start = rows.stop

    def _cut(self, records: Iterator[RawRow]) -> Iterator[list[RawRow]]:
        part, size = list[RawRow](), 0
        for record in records:
            if part and (len(part) == self.rows or size + record.bytes > MAX_PART_BYTES):
                yield part
                part, size = [], 0
            part.append(record)
            size += record.bytes
        if part:
            yield part


def row_of(number: int, record: Mapping[str, object], columns: UsedColumns) -> CorpusRow:
    """The row in the fields of a record; without a usable text it is an error row."""
    kept = {name: plain(record.get(name)) for name in columns.keep}
    id_ = number if columns.id is None else plain(record.get(columns.id))
    text = record.get(columns.text or "")
    if text is None:
        return CorpusRow(id_, None, RowError("no_text", f"it has no {columns.text!r}"), kept)
    if not isinstance(text, str):
        return CorpusRow(id_, None, RowError("no_text", f"its {columns.text!r} is not a text"), kept)
    return checked(CorpusRow(id_, text, None, kept))


def checked(row: CorpusRow) -> CorpusRow:
    """The row, as an error if its text is empty."""
    if row.text is not None and not row.text.strip():
        return CorpusRow(row.id, None, RowError("no_text", "its text is empty"), row.kept)
    return row


def plain(value: object) -> CellValue:
    """A value that any output can hold: nested ones become JSON."""
    if value is None or isinstance(value, str | int | float | bool | bytes):
        return value
    return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
