"""Files with columns that need nothing installed: .csv and .tsv, with a first line that names the columns."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from launcher.corpus.rows.lines import reading
from launcher.corpus.rows.records import MAX_RECORD_BYTES, CorpusRow, RawRow, UsedColumns, row_of
from launcher.errors import CorpusError

csv.field_size_limit(MAX_RECORD_BYTES)


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
                yield RawRow(sum(map(len, cells)), partial(self._row, dict(zip(names, cells, strict=False))))

    def _row(self, record: dict[str, str], number: int) -> CorpusRow:
        return row_of(number, record, self.columns)


def separated_rows(path: Path, separator: str) -> Iterator[list[str]]:
    """The cells of each record; those of the first are the names of the columns. Raises CorpusError."""
    with reading(path) as file:
        rows = csv.reader(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""), delimiter=separator)
        try:
            yield from rows
        except csv.Error as error:
            raise CorpusError(f"{path}, line {rows.line_num}: {error}") from error
        except UnicodeDecodeError as error:
            raise CorpusError(f"{path} is not UTF-8 after line {rows.line_num}: convert it") from error
