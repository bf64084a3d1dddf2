"""Files with columns that need nothing installed: .csv and .tsv, with a first line that names the columns."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

from launcher.corpus.rows.lines import reading
from launcher.corpus.rows.records import MAX_RECORD_BYTES, CorpusRow, RawRow, UsedColumns, row_of
from launcher.errors import CorpusError
from proxy.bulk.runner import RowError

csv.field_size_limit(MAX_RECORD_BYTES)
_ROWS_SEEN = 3  # lines that look like rows, or cells of one
_DIGITS = 18
_UNCLOSED = RowError("unclosed_quote", "a quote is not closed where its row ends: the rows after it are in it")
_NAMES = {",": "comma", "\t": "tab"}


@dataclass(frozen=True, slots=True)
class SeparatedValues:
    """A row per record of the csv module; a cell may have line breaks in quotes."""

    path: Path
    separator: str
    columns: UsedColumns

    def records(self) -> Iterator[RawRow]:
        rows = separated_rows(self.path, self.separator)
        names = next(rows, [])
        for cells in rows:
            if cells:
                yield RawRow(sum(map(len, cells)), partial(self._row, names, cells))

    def _row(self, names: list[str], cells: list[str], number: int) -> CorpusRow:
        row = row_of(number, dict(zip(names, cells, strict=False)), self.columns)
        if swallows_rows(cells, len(names), self.separator):
            return CorpusRow(row.id, None, _UNCLOSED)
        if not any(cells[len(names) :]):
            return row
        counts = f"its line has {len(cells)} fields, the header {len(names)}"
        message = f"{counts}: a text with a {_NAMES[self.separator]} needs quotes"
        return CorpusRow(row.id, None, RowError("surplus_fields", message))


def swallows_rows(cells: Sequence[str], columns: int, separator: str) -> bool:
    """Whether a cell has whole rows in it, so that its quote was not closed, but by the next one in the file.

    It cannot be known: a text may have such lines. So all its lines must be rows, and be numbered from its own row on;
    or there must be three whole lines or more, of three cells or more or with rising numbers.
    """
    for index, cell in enumerate(cells):
        if "\n" not in cell:
            continue
        *whole, last = [line.removesuffix("\r").split(separator) for line in cell.split("\n")[1:]]
        if any(len(row) != columns for row in whole) or len(last) != index + 1:
            continue
        steps = _steps([row[0] for row in (cells, *whole, last)]) if index > 0 else []
        numbered, rising = set(steps) == {1}, bool(steps) and min(steps) > 0
        if numbered or (len(whole) >= _ROWS_SEEN and (rising or columns >= _ROWS_SEEN)):
            return True
    return False


def _steps(ids: Sequence[str]) -> list[int]:
    """From each number to the next; none if one is no number."""
    if not all(one.isdecimal() and len(one) <= _DIGITS for one in ids):
        return []
    return [int(after) - int(before) for before, after in pairwise(ids)]


def separated_rows(path: Path, separator: str) -> Iterator[list[str]]:
    """The cells of each record; those of the first are the names of the columns. Raises CorpusError."""
    with reading(path) as file:
        lines = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
        rows, begins = csv.reader(lines, delimiter=separator, strict=True), 1
        try:
            for cells in rows:
                yield cells
                begins = rows.line_num + 1
        except csv.Error as error:
            raise CorpusError(f"{path}, line {begins}: {_reason(error)}") from error
        except UnicodeDecodeError as error:
            raise CorpusError(f"{path} is not UTF-8 after line {rows.line_num}: convert it") from error


def _reason(error: csv.Error) -> str:
    """What is wrong with the record, as the csv module says nothing of quotes."""
    if "unexpected end of data" in str(error):
        return "a field begins with a quote that is never closed"
    if "expected after" in str(error):
        return "a quote in a quoted field is followed by other text: double it, or close the field's quote before"
    return str(error)
