"""Which parts of a job are done: those whose file is in the job's folder. There is no other record."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from proxy.bulk.durable import UNFINISHED, write_durably

_NAME = re.compile(r"part-(\d{5,})-(\d{12,})-(\d{12,})")


@dataclass(frozen=True, slots=True, order=True)
class RowRange:
    """The rows `start` to `stop` - 1 of one input of a job, counted from 0."""

    source: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        """The name of the part's files, without the suffix; names sort as the rows do."""
        return f"part-{self.source:05d}-{self.start:012d}-{self.stop:012d}"

    @property
    def rows(self) -> int:
        return self.stop - self.start

    @classmethod
    def of_name(cls, name: str) -> "RowRange | None":
        """The range that a file's name says, without its suffix; None for any other name."""
        found = _NAME.fullmatch(name)
        return cls(*map(int, found.groups())) if found else None


@dataclass(slots=True)
class PartLedger:
    """The files of one kind in `folder`: a part is done if and only if it has one."""

    folder: Path
    suffix: str
    done: set[RowRange] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        """Make the folder, and read what is done."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.done = {rows for rows, _ in files_of(self.folder, self.suffix)}

    def remove_unfinished(self) -> None:
        """Remove what a killed run left half-written. For the owner of the folder, before anything is written."""
        for leftover in self.folder.glob(".part-*" + UNFINISHED):
            leftover.unlink(missing_ok=True)

    def path(self, rows: RowRange) -> Path:
        return self.folder / (rows.name + self.suffix)

    def commit(self, rows: RowRange, write: Callable[[BinaryIO], object]) -> None:
        """Write the part's file; when this returns, the part is done, whatever happens next. Raises OSError."""
        write_durably(self.path(rows), write)
        self.done.add(rows)

    def rows_done(self) -> int:
        return sum(rows.rows for rows in self.done)


def files_of(folder: Path, suffix: str) -> Iterator[tuple[RowRange, Path]]:
    """Every part's file in the folder, in the order of the rows; changes nothing."""
    for path in sorted(folder.glob("part-*" + suffix)):
        rows = RowRange.of_name(path.name.removesuffix(suffix))
        if rows is not None:
            yield rows, path
