"""The rows without a vector: a file of JSON lines per part that has any, beside the vectors."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import orjson

from launcher.corpus.rows.records import CorpusRow
from proxy.bulk.ledger import PartLedger, RowRange, files_of
from proxy.bulk.runner import RowError

SUFFIX = ".jsonl"


@dataclass(slots=True)
class ErrorRows:
    folder: Path
    ledger: PartLedger = field(init=False)

    def __post_init__(self) -> None:
        self.ledger = PartLedger(self.folder, SUFFIX)

    def write(self, rows: RowRange, read: Sequence[CorpusRow], errors: Mapping[int, RowError]) -> None:
        """Write the part's file, or remove it if there is no error. To be called before the part is done."""
        if not errors:
            self.ledger.path(rows).unlink(missing_ok=True)
            return

        def lines(file: BinaryIO) -> None:
            facts = (_facts(rows.start + row, read[row], errors[row]) for row in sorted(errors))
            file.writelines(orjson.dumps(one, default=str) + b"\n" for one in facts)

        self.ledger.commit(rows, lines)


def _facts(row: int, read: CorpusRow, error: RowError) -> dict[str, object]:
    chars = None if read.text is None else len(read.text)
    return {"row": row, "id": read.id, "code": error.code, "message": error.message, "chars": chars}


@dataclass(frozen=True, slots=True)
class ErrorLine:
    """An error row: its part, its place in it, and what is written about it; `row` there is its number in its input."""

    part: RowRange
    place: int
    facts: Mapping[str, object]


def error_lines(folder: Path, done: set[RowRange]) -> Iterator[ErrorLine]:
    """The error rows of the parts that are done, in order."""
    for rows, path in files_of(folder, SUFFIX):
        if rows in done:
            with path.open("rb") as file:
                for line in file:
                    facts = orjson.loads(line)
                    yield ErrorLine(rows, int(facts["row"]) - rows.start, facts)
