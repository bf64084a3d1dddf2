"""The inputs of a job as they were when it began, and whether they still are."""

import hashlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from shlex import quote

from pydantic import BaseModel, ConfigDict

from launcher.corpus.rows.parquet import parquet_file
from launcher.corpus.rows.records import UsedColumns
from launcher.corpus.rows.sources import InputFormat, reader_of
from launcher.errors import CorpusError, JobStopped

MAX_HASHED_BYTES = 2**30  # takes a second or two
Stop = Callable[[], bool]  # whether the user wants it to end
_SAMPLE = 2**20  # bytes at the start and at the end that are hashed


class InputFile(BaseModel):
    """One file, as it was when the job began. `digest` is of its first and last MiB.

    `whole` is of all of it; None for a file that is too large to be read once more.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path
    format: InputFormat
    columns: UsedColumns
    bytes: int
    mtime_ns: int
    digest: str
    rows: int
    whole: str | None = None


def fingerprint(path: Path, format_: InputFormat, columns: UsedColumns) -> InputFile:
    """The file as it is now; its rows are not counted. Raises OSError."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        stat = path.stat()
        digest.update(file.read(_SAMPLE))
        file.seek(max(0, stat.st_size - _SAMPLE))
        digest.update(file.read(_SAMPLE))
    return InputFile(
        path=path,
        format=format_,
        columns=columns,
        bytes=stat.st_size,
        mtime_ns=stat.st_mtime_ns,
        digest=digest.hexdigest(),
        rows=0,
    )


def counted(one: InputFile, stop: Stop) -> InputFile:
    """With the number of its rows and the hash of all of it. Raises CorpusError, OSError; JobStopped."""
    if one.format is InputFormat.PARQUET:
        with parquet_file(one.path) as file:
            rows = file.metadata.num_rows
    else:
        rows = 0
        for _ in reader_of(one.path, one.format, one.columns).records():
            rows += 1
            if stop():
                raise JobStopped("stopped while the rows were counted: nothing is done yet")
    whole = _whole(one.path) if one.bytes <= MAX_HASHED_BYTES else None
    return one.model_copy(update={"rows": rows, "whole": whole})


def check_unchanged(inputs: Sequence[InputFile]) -> None:
    """Raises CorpusError that names an input which is not what it was."""
    for old in inputs:
        try:
            changed = _change(old, fingerprint(old.path, old.format, old.columns))
        except OSError as error:
            raise CorpusError(f"{old.path} cannot be read any more: {error.strerror}") from error
        if changed:
            raise CorpusError(f"{old.path} {changed}")


def _change(old: InputFile, now: InputFile) -> str | None:
    """What has changed, in words. Another time alone is no change if all bytes are known to be the same."""
    other = "start a new job in another --out"
    if old.bytes != now.bytes:
        return f"has changed since the job began: it had {old.bytes} bytes, and has {now.bytes} now: {other}"
    same = old.digest == now.digest
    if same and (old.mtime_ns == now.mtime_ns or old.bytes <= 2 * _SAMPLE):
        return None
    if same and old.whole is None:
        before, after = _date(old.mtime_ns), _date(now.mtime_ns)
        return (
            f"is from {after}, and was from {before} when the job began, which has no hash of all of it, to compare:"
            f" if you know that it has not changed, `touch -d '{before}' {quote(str(old.path))}`, else {other}"
        )
    if same and _whole(old.path) == old.whole:
        return None
    return f"has changed since the job began: it has as many bytes, but others: {other}"


def _date(ns: int) -> str:
    """As `touch -d` reads it, with nothing left out."""
    seconds, rest = divmod(ns, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}.{rest:09} UTC"


def _whole(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
