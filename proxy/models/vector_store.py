"""The cache's SQLite database: rows that prove that they are whole, in a file that may be damaged or full.

One thread owns it, so every method is called from that thread only. What fails here finds nothing and keeps nothing.
"""

import hashlib
import logging
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import numpy as np

from proxy import metrics
from proxy.contract.settings_file import BadSettings
from proxy.types import Vector

log = logging.getLogger(__name__)

T = TypeVar("T")
VERSION = 2  # of the schema; the first had no checksums
VECTOR = "CREATE TABLE vector (key BLOB PRIMARY KEY, value BLOB NOT NULL, digest BLOB NOT NULL, used INTEGER)"
WITHOUT_DIGEST = b"CREATE TABLE vector (key BLOB PRIMARY KEY, value BLOB NOT NULL, used INTEGER NOT NULL)"
DROP = "DELETE FROM vector WHERE key IN (SELECT key FROM vector ORDER BY used LIMIT 64) RETURNING length(value)"
JOURNALS = ("-wal", "-shm", "-journal")
DAMAGED_ROWS = "the cache has damaged vectors: they are deleted and computed again"
OVERHEAD_BYTES = 170  # of an entry beside its vector: key, digest and what SQLite adds (measured)
BUSY_S = 0.1  # for a lock that another process holds
ASKED_AT_ONCE = 1000  # keys, of SQLite's 32766 variables
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
REFUSED = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM)
PASSING = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)


class Unusable(Exception):
    """The file is not a cache that can be used; the message says why."""


class VectorStore:
    """At most `size_bytes` of vectors by their keys, in a private file, or in memory without one.

    A file that is damaged, or no cache of ours, is set aside as `….damaged` and said; one of an earlier version is
    deleted. Raises BadSettings for a path where no file can be, sqlite3.Error for a full disk and the like.
    """

    def __init__(self, path: Path | None, size_bytes: int, dimensions: int) -> None:
        self._path, self._size_bytes, self._dimensions = path, size_bytes, dimensions
        self._failing = set[str]()  # what cannot be done at the moment
        self._told = False
        self._clock = self._bytes = 0
        self._connection: sqlite3.Connection | None = None
        try:
            self._open()
        except OSError as error:
            raise BadSettings(f"cache_file = {path}: {error.strerror}; name another file") from error
        except sqlite3.Error as error:
            if _code(error) in PASSING:
                raise
            raise BadSettings(f"cache_file = {path}: {error}; name another file") from error

    def get(self, keys: Sequence[bytes]) -> Mapping[bytes, Vector]:
        """Those that are there and whole: float32, of full size. One that is not is deleted."""
        return self._tried("read", lambda connection: self._get(connection, keys), {})

    def keep(self, used: Iterable[bytes], fresh: Mapping[bytes, Vector]) -> None:
        """Keep the fresh ones, remember which were used, drop what was used least recently: one transaction."""
        self._tried("written", lambda connection: self._keep(connection, used, fresh), None)

    def close(self) -> None:
        if self._connection:
            with suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None

    def _get(self, connection: sqlite3.Connection, keys: Sequence[bytes]) -> Mapping[bytes, Vector]:
        found, wrong = dict[bytes, Vector](), list[bytes]()
        for start in range(0, len(keys), ASKED_AT_ONCE):
            asked = keys[start : start + ASKED_AT_ONCE]
            marks = ",".join("?" * len(asked))
            query = f"SELECT key, value, digest FROM vector WHERE key IN ({marks})"  # noqa: S608 # only marks
            for key, value, digest in connection.execute(query, asked):
                vector = self._whole(key, value, digest)
                if vector is None:
                    wrong.append(key)
                else:
                    found[key] = vector
        if wrong:
            self._delete(connection, wrong)
        return found

    def _whole(self, key: bytes, value: object, digest: object) -> Vector | None:
        """The vector of a row, if it is the one that was kept under that key."""
        if not isinstance(value, bytes) or len(value) != 4 * self._dimensions or digest != _digest(key, value):
            return None
        vector = np.frombuffer(value, dtype="<f4")
        return vector if np.isfinite(vector).all() else None

    def _delete(self, connection: sqlite3.Connection, wrong: Sequence[bytes]) -> None:
        metrics.CACHED.labels("damaged").inc(len(wrong))
        if not self._told:
            log.warning(DAMAGED_ROWS)
            self._told = True
        with _transaction(connection):
            connection.executemany("DELETE FROM vector WHERE key = ?", [(key,) for key in wrong])
        self._count(connection)

    def _keep(self, connection: sqlite3.Connection, used: Iterable[bytes], fresh: Mapping[bytes, Vector]) -> None:
        clock, size = self._clock + 1, self._bytes
        with _transaction(connection):
            connection.executemany("UPDATE vector SET used = ? WHERE key = ?", [(clock, key) for key in used])
            for key, vector in fresh.items():
                value = vector.astype("<f4", copy=False).tobytes()
                row = (key, value, _digest(key, value), clock)
                added = connection.execute("INSERT OR IGNORE INTO vector VALUES (?, ?, ?, ?)", row).rowcount
                size += added * (len(value) + OVERHEAD_BYTES)
            size -= _dropped(connection, size - self._size_bytes)
        self._clock, self._bytes = clock, size

    def _tried(self, what: str, work: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        """What the work gives; `otherwise` if the database fails, which is said once until it works again."""
        if self._connection is None:
            return otherwise
        try:
            done = work(self._connection)
        except (sqlite3.Error, OSError) as error:
            self._failed(what, error)
            return otherwise
        if what in self._failing:
            log.info("the cache can be %s again", what)
            self._failing.remove(what)
        return done

    def _failed(self, what: str, error: sqlite3.Error | OSError) -> None:
        if what not in self._failing:
            log.warning("the cache cannot be %s: %s: vectors are computed without it", what, error)
            self._failing.add(what)
        if _code(error) in DAMAGED:
            self.close()
            try:
                self._open_new(str(error))
            except (sqlite3.Error, OSError) as again:
                log.warning("the cache is off: %s", again)
                self.close()

    def _open(self) -> None:
        if self._path:
            _make_private(self._path)
        try:
            self._connect()
        except Unusable as reason:
            self._open_new(str(reason))
        except sqlite3.DatabaseError as error:
            if _code(error) in (*PASSING, *REFUSED):
                raise
            self._open_new(str(error))

    def _open_new(self, reason: str) -> None:
        """With an empty file in place of the one that cannot be used."""
        self.close()
        if self._path:
            aside = self._path.with_name(self._path.name + ".damaged")
            log.warning(
                "cache_file = %s: %s: it is set aside as %s, the new one is empty", self._path, reason, aside.name
            )
            self._path.replace(aside)
            _forget_journals(self._path)
            _make_private(self._path)
        self._connect()

    def _connect(self) -> None:
        """Raises Unusable, sqlite3.Error."""
        self._connection = connection = sqlite3.connect(self._path or ":memory:", timeout=BUSY_S, isolation_level=None)
        connection.text_factory = bytes  # a damaged text need not be UTF-8
        tables = dict(connection.execute("SELECT name, sql FROM sqlite_master").fetchall())
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        kind = (version, tables.get(b"vector"))
        if tables and kind not in [(VERSION, VECTOR.encode()), (0, WITHOUT_DIGEST)]:
            raise Unusable("it is no cache of this version")
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = OFF")  # what a crash loses is computed again
        if kind == (0, WITHOUT_DIGEST):
            log.warning("cache_file = %s: of an earlier version, without checksums: it is emptied", self._path)
            connection.execute("DROP TABLE vector")
            connection.execute("VACUUM")
        if kind[0] != VERSION:
            with _transaction(connection):
                for statement in (VECTOR, "CREATE INDEX by_use ON vector (used)", f"PRAGMA user_version = {VERSION}"):
                    connection.execute(statement)
        self._count(connection)
        self._shrink(connection)

    def _count(self, connection: sqlite3.Connection) -> None:
        (self._clock, self._bytes) = connection.execute(
            "SELECT coalesce(max(used), 0), coalesce(sum(length(value) + ?), 0) FROM vector", (OVERHEAD_BYTES,)
        ).fetchone()

    def _shrink(self, connection: sqlite3.Connection) -> None:
        """Give back the disk of what was kept with a larger `size_bytes`."""
        if self._bytes > self._size_bytes:
            with _transaction(connection):
                self._bytes -= _dropped(connection, self._bytes - self._size_bytes)
            connection.executescript("PRAGMA incremental_vacuum")  # `execute` would give back a single page


def _dropped(connection: sqlite3.Connection, size: int) -> int:
    """Delete what was used least recently, so many bytes at least if there are; returns how many."""
    dropped = 0
    while dropped < size and (rows := connection.execute(DROP).fetchall()):
        dropped += sum(length + OVERHEAD_BYTES for (length,) in rows)
    return dropped


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # a full disk has rolled it back already
            connection.execute("ROLLBACK")
        raise


def _digest(key: bytes, value: bytes) -> bytes:
    """Of the value under that key: another key's vector is not right either."""
    return hashlib.blake2b(value, key=key, digest_size=16).digest()


def _code(error: Exception) -> int:
    """SQLite's primary result code; 0 if it did not come from there."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _make_private(path: Path) -> None:
    """For this user alone, journals too: SQLite gives those that it makes the file's mode. Raises OSError."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    for one in (path, *(Path(f"{path}{suffix}") for suffix in JOURNALS)):
        with suppress(FileNotFoundError, PermissionError):  # another user's file is theirs to open
            one.chmod(0o600)


def _forget_journals(path: Path) -> None:
    """Of a database that is not there any more: SQLite would play them into the next one."""
    for suffix in JOURNALS:
        Path(f"{path}{suffix}").unlink(missing_ok=True)
