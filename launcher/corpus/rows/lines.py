"""Files with a row per line: a text (.txt) or a JSON object (.jsonl), plain, .gz or .zst."""

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import BinaryIO, cast

import orjson

from launcher.corpus.rows.records import MAX_RECORD_BYTES, CorpusRow, RawRow, UsedColumns, checked, row_of
from launcher.corpus.rows.with_pyarrow import pyarrow
from launcher.errors import CorpusError
from proxy.bulk.runner import RowError

_TOO_LONG = RowError("too_long", f"its line has more than {MAX_RECORD_BYTES // 2**20} MiB")
_BUFFER = 2**20
_LOOKED_AT = 10_000  # rows, for the names of the columns: not each row need have all of them
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class TextLines:
    """A text per line, UTF-8. An empty line is an error row, so that row numbers are line numbers."""

    path: Path

    def records(self) -> Iterator[RawRow]:
        return (RawRow(len(line or b""), partial(self._row, line)) for line in _lines(self.path))

    def _row(self, line: bytes | None, number: int) -> CorpusRow:
        if line is None:
            return CorpusRow(number, None, _TOO_LONG)
        try:
            return checked(CorpusRow(number, line.decode().removesuffix("\r")))
        except UnicodeDecodeError as error:
            return CorpusRow(number, None, RowError("not_utf8", f"{error.reason} at byte {error.start}"))


@dataclass(frozen=True, slots=True)
class JsonLines:
    """A JSON object per line; blank lines are no rows."""

    path: Path
    columns: UsedColumns

    def records(self) -> Iterator[RawRow]:
        return (RawRow(len(line or b""), partial(self._row, line)) for line in self.lines())

    def lines(self) -> Iterator[bytes | None]:
        """Each line with something in it; None for one that is too long."""
        return (line for line in _lines(self.path) if line is None or line.strip())

    def _row(self, line: bytes | None, number: int) -> CorpusRow:
        if line is None:
            return CorpusRow(number, None, _TOO_LONG)
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            return CorpusRow(number, None, RowError("not_json", str(error)))
        if not isinstance(record, dict):
            return CorpusRow(number, None, RowError("not_json", "its line is not a JSON object"))
        return row_of(number, record, self.columns)


def json_columns(path: Path) -> tuple[str, ...]:
    """The fields of the first rows that are objects, each once; none if there is no such row."""
    return tuple(dict.fromkeys(name for record in islice(_objects(path), _LOOKED_AT) for name in record))


def _objects(path: Path) -> Iterator[dict[str, object]]:
    for line in JsonLines(path, UsedColumns()).lines():
        try:
            record = orjson.loads(line or b"null")
        except orjson.JSONDecodeError:
            continue
        if isinstance(record, dict):
            yield record


def _lines(path: Path) -> Iterator[bytes | None]:
    """Each line without its end; None for one that is too long. Raises CorpusError for a damaged archive."""
    with reading(path) as file:
        line = file.readline(MAX_RECORD_BYTES + 1).removeprefix(_BOM)
        while line:
            if len(line) > MAX_RECORD_BYTES and not line.endswith(b"\n"):
                _skip_line(file)
                yield None
            else:
                yield line.removesuffix(b"\n")
            line = file.readline(MAX_RECORD_BYTES + 1)


def _skip_line(file: BinaryIO) -> None:
    while (rest := file.readline(_BUFFER)) and not rest.endswith(b"\n"):
        pass


@contextmanager
def reading(path: Path) -> Iterator[BinaryIO]:
    """The file, decompressed. Raises OSError, and CorpusError for a damaged archive."""
    try:
        with closing(_opened(path)) as file:
            yield file
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise CorpusError(f"{path} is damaged or incomplete: {error}") from error
    except OSError as error:
        if path.suffix == ".zst" and error.errno is None:  # pyarrow's for bad data
            raise CorpusError(f"{path} is damaged or incomplete: {error}") from error
        raise


def _opened(path: Path) -> BinaryIO:
    if path.suffix == ".gz":
        return cast("BinaryIO", gzip.open(path, "rb"))
    if path.suffix == ".zst":
        stream = pyarrow(f"{path.name} is compressed with zstd").input_stream(str(path), compression="zstd")
        return io.BufferedReader(cast("io.RawIOBase", stream), _BUFFER)
    return path.open("rb", _BUFFER)
