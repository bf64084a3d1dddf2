"""The cache's SQLite database: rows with checksums, in a file that may be damaged or full.

One thread owns it: every method is called from that thread only. After an error it finds nothing and keeps nothing.
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
_VERSION = 2  # of the schema; the first had no checksums
VECTOR = "CREATE TABLE vector (key BLOB PRIMARY KEY, value BLOB NOT NULL, digest BLOB NOT NULL, used INTEGER)"
WITHOUT_DIGEST = b"CREATE TABLE vector (key BLOB PRIMARY KEY, value BLOB NOT NULL, used INTEGER NOT NULL)"
DROP = "DELETE FROM vector WHERE key IN (SELECT key FROM vector ORDER BY used LIMIT 64) RETURNING length(value)"
JOURNALS = ("-wal", "-shm", "-journal")
DAMAGED_ROWS = "the cache has damaged vectors: they are deleted and computed again"
OVERHEAD_BYTES = 170  # of an entry besides its vector: key, digest and what SQLite adds (measured)
BUSY_S = 0.1  # for a lock that another process holds
KEYS_PER_QUERY = 1000  # of SQLite's 32766 variables
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
REFUSED = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM)
MISREAD = (TypeError, ValueError, OverflowError)  # raised for a damaged file's text, type of a column, number
TRANSIENT = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)


class Unusable(Exception):
    """The file is not a cache that can be used; the message says why."""


class VectorStore:
    """At most `size_bytes` of vectors by their keys, in a private file, or in memory without one.

    A file that is damaged, or not our cache, is renamed to `….damaged` with a warning; one of an earlier version is
    emptied. Raises BadSettings for a path where no file can be, sqlite3.Error for a full disk and the like.
    """

    def __init__(self, path: Path | None, size_bytes: int, dimensions: int) -> None:
        self._path, self._size_bytes, self._dimensions = path, size_bytes, dimensions
        self._failing = set[str]()  # operations that fail at the moment
        self._warned = False
        self._clock = self._bytes = 0
        self._connection: sqlite3.Connection | None = None
        try:
            self._open()
        except OSError as error:
            raise BadSettings(f"cache_file = {path}: {error.strerror}; name another file") from error
        except sqlite3.Error as error:
            if _code(error) in TRANSIENT:
                raise
            raise BadSettings(f"cache_file = {path}: {error}; name another file") from error

    def get(self, keys: Sequence[bytes]) -> Mapping[bytes, Vector]:
        """The vectors that are there and intact: float32, of full size. Damaged ones are deleted."""
        return self._attempt("read", lambda connection: self._get(connection, keys), {})

    def keep(self, used: Iterable[bytes], fresh: Mapping[bytes, Vector]) -> None:
        """Store the fresh ones, mark the used ones, delete the least recently used: one transaction."""
        self._attempt("written", lambda connection: self._keep(connection, used, fresh), None)

    def close(self) -> None:
        if self._connection:
            with suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None

    def _get(self, connection: sqlite3.Connection, keys: Sequence[bytes]) -> Mapping[bytes, Vector]:
        found, wrong = dict[bytes, Vector](), list[bytes]()
        for start in range(0, len(keys), KEYS_PER_QUERY):
            some = keys[start : start + KEYS_PER_QUERY]
            marks = ",".join("?" * len(some))
            query = f"SELECT key, value, digest FROM vector WHERE key IN ({marks})"  # noqa: S608 # only marks
            for key, value, digest in connection.execute(query, some):
                vector = self._intact(key, value, digest)
                if vector is None:
                    wrong.append(key)
                else:
                    found[key] = vector
        if wrong:
            self._delete(connection, wrong)
        return found

    def _intact(self, key: bytes, value: object, digest: object) -> Vector | None:
        """The vector of a row, if it is the one that was stored under that key."""
        if not isinstance(value, bytes) or len(value) != 4 * self._dimensions or digest != _digest(key, value):
            return None
        vector = np.frombuffer(value, dtype="<f4")
        return vector if np.isfinite(vector).all() else None

    def _delete(self, connection: sqlite3.Connection, wrong: Sequence[bytes]) -> None:
        metrics.CACHED.labels("damaged").inc(len(wrong))
        if not self._warned:
            log.warning(DAMAGED_ROWS)
            self._warned = True
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
            size -= _delete_oldest(connection, size - self._size_bytes)
        self._clock, self._bytes = clock, size

    def _attempt(self, what: str, work: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        """The result of the work; `otherwise` if the database fails, which is logged once until it works again."""
        if self._connection is None:
            return otherwise
        try:
            done = work(self._connection)
        except (sqlite3.Error, OSError, *MISREAD) as error:
            self._failed(what, error)
            return otherwise
        if what in self._failing:
            log.info("the cache can be %s again", what)
            self._failing.remove(what)
        return done

    def _failed(self, what: str, error: Exception) -> None:
        if what not in self._failing:
            log.warning("the cache cannot be %s: %s: vectors are computed without it", what, error)
            self._failing.add(what)
        if _code(error) in DAMAGED or isinstance(error, MISREAD):
            try:
                self._open_new(str(error))
            except (sqlite3.Error, OSError) as second:
                log.warning("the cache is off: %s", second)
                self.close()

    def _open(self) -> None:
        if self._path:
            _make_private(self._path)
        try:
            self._connect()
        except (Unusable, *MISREAD) as reason:
            self._open_new(str(reason))
        except sqlite3.DatabaseError as error:
            if _code(error) in (*TRANSIENT, *REFUSED):
                raise
            self._open_new(str(error))

    def _open_new(self, reason: str) -> None:
        """Open an empty file in place of the one that cannot be used."""
        self.close()
        if self._path:
            damaged = self._path.with_name(self._path.name + ".damaged")
            log.warning(
                "cache_file = %s: %s: it is renamed to %s, the new one is empty", self._path, reason, damaged.name
            )
            self._path.replace(damaged)
            _delete_journals(self._path)
            _make_private(self._path)
        self._connect()

    def _connect(self) -> None:
        """Raises Unusable, sqlite3.Error."""
        self._connection = connection = sqlite3.connect(self._path or ":memory:", timeout=BUSY_S, isolation_level=None)
        connection.text_factory = bytes  # a damaged text need not be UTF-8
        tables = dict(connection.execute("SELECT name, sql FROM sqlite_master").fetchall())
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        kind = (version, tables.get(b"vector"))
        if tables and kind not in [(_VERSION, VECTOR.encode()), (0, WITHOUT_DIGEST)]:
            raise Unusable("it is not a cache of this version")
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = OFF")  # what a crash loses is computed again
        if kind == (0, WITHOUT_DIGEST):
            log.warning("cache_file = %s: from an earlier version, without checksums: emptied", self._path)
            connection.execute("DROP TABLE vector")
            connection.execute("VACUUM")
        if kind[0] != _VERSION:
            with _transaction(connection):
                for statement in (VECTOR, "CREATE INDEX by_use ON vector (used)", f"PRAGMA user_version = {_VERSION}"):
                    connection.execute(statement)
        self._count(connection)
        self._shrink(connection)

    def _count(self, connection: sqlite3.Connection) -> None:
        (self._clock, self._bytes) = connection.execute(
            "SELECT coalesce(max(used), 0), coalesce(sum(length(value) + ?), 0) FROM vector", (OVERHEAD_BYTES,)
        ).fetchone()

    def _shrink(self, connection: sqlite3.Connection) -> None:
        """Free the disk space of vectors that were kept with a larger `size_bytes`."""
        if self._bytes > self._size_bytes:
            with _transaction(connection):
                self._bytes -= _delete_oldest(connection, self._bytes - self._size_bytes)
            connection.executescript("PRAGMA incremental_vacuum")  # `execute` would free a single page


def _delete_oldest(connection: sqlite3.Connection, size: int) -> int:
    """Delete the least recently used vectors, at least so many bytes if there are; returns how many."""
    deleted = 0
    while deleted < size and (rows := connection.execute(DROP).fetchall()):
        deleted += sum(length + OVERHEAD_BYTES for (length,) in rows)
    return deleted


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
    """Of the value under that key: a vector of another key is wrong, too."""
    return hashlib.blake2b(value, key=key, digest_size=16).digest()


def _code(error: Exception) -> int:
    """SQLite's primary result code; 0 if it did not come from there."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _make_private(path: Path) -> None:
    """Allow this user alone, also in the journals, to which SQLite gives the file's mode. Raises OSError."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    for one in (path, *(Path(f"{path}{suffix}") for suffix in JOURNALS)):
        with suppress(FileNotFoundError, PermissionError):  # another user's file is theirs to protect
            one.chmod(0o600)


def _delete_journals(path: Path) -> None:
    """Delete those of a database that is gone: SQLite would apply them to the next one."""
    for suffix in JOURNALS:
        Path(f"{path}{suffix}").unlink(missing_ok=True)
