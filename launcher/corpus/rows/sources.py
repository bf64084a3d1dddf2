"""Which files a corpus is, of which format, and which of their columns are used."""

import glob
import shutil
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

from launcher.corpus.rows.lines import JsonLines, TextLines, json_columns
from launcher.corpus.rows.parquet import ParquetRows, parquet_schema
from launcher.corpus.rows.records import RowReader, UsedColumns
from launcher.corpus.rows.tables import SeparatedValues, separated_rows
from launcher.errors import ArgumentError
from launcher.terminal.given_texts import STDIN
from proxy.bulk.durable import write_durably

TEXT_COLUMNS = ("text", "content", "body", "passage")
COMPRESSED = (".gz", ".zst")


class InputFormat(StrEnum):
    TXT = "txt"
    JSONL = "jsonl"
    CSV = "csv"
    TSV = "tsv"
    PARQUET = "parquet"


_BY_SUFFIX = {
    **{f".{one}": one for one in InputFormat},
    ".text": InputFormat.TXT,
    ".ndjson": InputFormat.JSONL,
    ".pq": InputFormat.PARQUET,
}


def check_folder(folder: Path) -> None:
    """Raises ArgumentError if a file is where the folder, or one above it, has to be."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise ArgumentError(f"{there} is a file, and --out has to be a folder: give another --out")


def given_files(
    patterns: Sequence[str], format_: InputFormat | None, columns: UsedColumns, folder: Path
) -> list[tuple[Path, InputFormat, UsedColumns]]:
    """The files that are meant, with their formats and columns; `-` is standard input, kept in `folder`.

    Raises ArgumentError.
    """
    if STDIN in patterns:
        if len(patterns) > 1:
            raise ArgumentError("- is standard input, and stands alone")
        files = [spooled(sys.stdin.buffer, format_ or InputFormat.TXT, folder)]
    else:
        files = found_files(patterns)
    return [(path, kind := format_of(path, format_), chosen_columns(path, kind, columns)) for path in files]


def found_files(patterns: Sequence[str]) -> list[Path]:
    """The files, in the order given, those of a glob by name. Raises ArgumentError for one that is not there."""
    files = list[Path]()
    for pattern in patterns:
        names = [pattern] if Path(pattern).exists() else sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 # a pattern with a root
        found = [Path(name).resolve() for name in names if Path(name).is_file()]
        if not found:
            raise ArgumentError(f"{pattern}: no such file")
        files += found
    if len(set(files)) < len(files):
        raise ArgumentError("a file is given twice, and its rows would be embedded twice: give it once")
    return files


def spooled(stdin: BinaryIO, format_: InputFormat, folder: Path) -> Path:
    """Standard input as a file in the folder, so that the job can be resumed."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder.resolve() / f"stdin.{format_}"
    write_durably(path, lambda file: shutil.copyfileobj(stdin, file, 2**20))
    return path


def format_of(path: Path, given: InputFormat | None) -> InputFormat:
    """By the name, without what says that it is compressed. Raises ArgumentError for a name that does not say it."""
    suffix = path.with_suffix("").suffix if path.suffix in COMPRESSED else path.suffix
    found = given or _BY_SUFFIX.get(suffix.lower())
    if found is None:
        names = ", ".join(InputFormat)
        raise ArgumentError(f"{path.name} does not say its format: give --from with one of {names}")
    if found is InputFormat.PARQUET and path.suffix in COMPRESSED:
        raise ArgumentError(f"{path.name}: a parquet file is compressed inside: unpack it")
    return found


def chosen_columns(path: Path, format_: InputFormat, given: UsedColumns) -> UsedColumns:
    """The columns to use of that file; the text's is guessed if not given. Raises ArgumentError with those it has."""
    if format_ is InputFormat.TXT:
        if given.text or given.id or given.keep:
            raise ArgumentError(f"{path.name} has a text per line and no columns: leave out --text, --id and --keep")
        return given
    names = _names(path, format_)
    text = given.text or next((name for name in TEXT_COLUMNS if name in names), None)
    wanted = [name for name in (given.text, given.id, *given.keep) if name is not None]
    if not names and format_ is InputFormat.JSONL:  # without rows it has none
        wanted = []
    missing = [name for name in wanted if name not in names]
    if text is None or missing:
        lack = f"has no column {missing[0]!r}" if missing else "has no column that is named as a text: give --text"
        raise ArgumentError(f"{path.name} {lack}; it has {', '.join(map(repr, names)) or 'none'}")
    return UsedColumns(text=text, id=given.id, keep=tuple(given.keep))


def _names(path: Path, format_: InputFormat) -> tuple[str, ...]:
    match format_:
        case InputFormat.JSONL:
            return json_columns(path)
        case InputFormat.PARQUET:
            return tuple(parquet_schema(path).names)
        case _:
            return tuple(next(separated_rows(path, _separator(format_)), []))


def reader_of(path: Path, format_: InputFormat, columns: UsedColumns) -> RowReader:
    """The rows of that file."""
    match format_:
        case InputFormat.TXT:
            return TextLines(path)
        case InputFormat.JSONL:
            return JsonLines(path, columns)
        case InputFormat.PARQUET:
            return ParquetRows(path, columns)
        case _:
            return SeparatedValues(path, _separator(format_), columns)


def _separator(format_: InputFormat) -> str:
    return "\t" if format_ is InputFormat.TSV else ","
