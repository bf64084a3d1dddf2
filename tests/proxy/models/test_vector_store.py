"""The cache's file: a damaged, locked, foreign or full one costs no answer, and nothing of it is served wrong."""

import asyncio
import hashlib
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from proxy.contract.settings_file import BadSettings
from proxy.models.cache import key_of, open_cache
from proxy.models.vector_store import DAMAGED_ROWS
from tests.proxy.models.cached_vectors import DIMENSIONS, ENTRY, Model, cached, vector


async def kept(path: Path, count: int = 20) -> None:
    """A file with the vectors of so many texts."""
    async with open_cache(10**6, path, DIMENSIONS) as cache:
        assert cache
        await cached(cache, "a", [[n] for n in range(100, 100 + count)], Model("a"), lambda: True)


async def computed(path: Path, count: int = 20) -> int:
    """How many of those are computed; all must be right."""
    model = Model("a")
    async with open_cache(10**6, path, DIMENSIONS) as cache:
        assert cache
        outcome = await cached(cache, "a", [[n] for n in range(100, 100 + count)], model, lambda: True)
    np.testing.assert_array_equal(outcome.rows, np.stack([vector("a", [n]) for n in range(100, 100 + count)]))
    return model.computed


NAN, FOREIGN = (np.full(DIMENSIONS, fill, dtype="<f4").tobytes() for fill in (np.nan, 3.0))
SWAPPED = """
    UPDATE vector SET (value, digest) = (SELECT value, digest FROM vector AS other WHERE other.key > vector.key
    ORDER BY other.key LIMIT 1) WHERE key < (SELECT max(key) FROM vector)
"""
DAMAGES = {
    "zeroed": ("UPDATE vector SET value = zeroblob(length(value))", (), 20),
    "not finite": ("UPDATE vector SET value = ?", (NAN,), 20),
    "another vector": ("UPDATE vector SET value = ?", (FOREIGN,), 20),
    "another key's vector, checksum and all": (SWAPPED, (), 19),
    "cut off": ("UPDATE vector SET value = substr(value, 1, 8)", (), 20),
    "a number": ("UPDATE vector SET value = 7, digest = 7", (), 20),
    "one bit": ("UPDATE vector SET value = x'01' || substr(value, 2) WHERE rowid = 3", (), 1),
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_row_that_is_not_what_was_kept_is_computed_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    path, (statement, values, wrong) = tmp_path / "c.db", DAMAGES[damage]
    await kept(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement, values)
        connection.commit()
    caplog.clear()
    assert await computed(path) == wrong
    assert [record.message for record in caplog.records].count(DAMAGED_ROWS) == 1
    assert await computed(path) == 0


async def test_a_row_with_a_right_checksum_of_no_number_is_not_served(tmp_path: Path) -> None:
    path, key = tmp_path / "c.db", key_of("a", [100])
    await kept(path)
    with closing(sqlite3.connect(path)) as connection:
        digest = hashlib.blake2b(NAN, key=key, digest_size=16).digest()
        connection.execute("UPDATE vector SET value = ?, digest = ? WHERE key = ?", (NAN, digest, key))
        connection.commit()
    assert await computed(path) == 1


@pytest.mark.parametrize(
    "content", [b"SQLite format 3\0" + bytes(range(256)) * 160, b"a text" * 999, b"x"], ids=["header", "text", "byte"]
)
async def test_a_damaged_file_is_renamed_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    path = tmp_path / "c.db"
    for turn in range(2):
        path.write_bytes(content + b"%d" % turn)
        Path(f"{path}-wal").write_bytes(b"of the damaged one")
        assert await computed(path) == 20
        assert await computed(path) == 0
    assert (tmp_path / "c.db.damaged").read_bytes() == content + b"1"
    assert "renamed to c.db.damaged" in caplog.text
    assert {file.name for file in tmp_path.iterdir()} == {"c.db", "c.db.damaged"}


async def test_a_file_that_is_damaged_while_it_is_used_costs_no_answer(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    await kept(path, 500)
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    assert await computed(path, 500) == 500
    assert await computed(path, 500) == 0
    assert (tmp_path / "c.db.damaged").exists()


def with_schema(path: Path, old: bytes, new: bytes) -> None:
    """Change the text of the schema on the disk, to one of the same length."""
    content = path.read_bytes()
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new))


async def test_a_schema_that_is_no_text_is_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    await kept(path)
    with_schema(path, b"sqlite_autoindex_vector_1", b"sqlite_autoindex_\x80ector_1")
    assert await computed(path) == 20
    assert await computed(path) == 0
    assert (tmp_path / "c.db.damaged").exists()


@pytest.mark.parametrize("used", ["x'ff'", "9223372036854775807", "'late'"])
async def test_a_time_of_use_that_is_none_is_a_damaged_file(tmp_path: Path, used: str) -> None:
    path = tmp_path / "c.db"
    await kept(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"UPDATE vector SET used = {used} WHERE rowid = 3")  # noqa: S608 # one of the above
        connection.commit()
    assert await computed(path, 21) == 1
    assert await computed(path, 21) == 21  # the new file is empty
    assert await computed(path, 21) == 0
    assert (tmp_path / "c.db.damaged").exists()


async def test_a_vector_of_no_length_is_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    await kept(path)
    with_schema(path, b"value BLOB NOT NULL", b"value BLOB         ")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE vector SET value = NULL")
        connection.commit()
    with_schema(path, b"value BLOB         ", b"value BLOB NOT NULL")
    async with open_cache(5 * ENTRY, path, DIMENSIONS) as cache:
        assert cache
        await cached(cache, "a", [[n] for n in range(10)], Model("a"), lambda: True)
    assert (tmp_path / "c.db.damaged").exists()


async def test_a_database_of_another_program_is_left_intact(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE photograph (name TEXT)")
    assert await computed(path) == 20
    with closing(sqlite3.connect(tmp_path / "c.db.damaged")) as connection:
        assert connection.execute("SELECT count(*) FROM photograph").fetchone() == (0,)


async def test_a_file_of_an_earlier_version_is_emptied(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "c.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS vector (key BLOB PRIMARY KEY, value BLOB NOT NULL, used INTEGER NOT NULL)"
        )
        connection.execute("CREATE INDEX IF NOT EXISTS by_use ON vector (used)")
        connection.execute("INSERT INTO vector VALUES (?, ?, 1)", (key_of("a", [100]), FOREIGN))
        connection.commit()
    assert await computed(path) == 20
    assert await computed(path) == 0
    assert caplog.text.count("without checksums: emptied") == 1


async def test_a_file_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere" / "c.db"):
        with pytest.raises(BadSettings, match=f"cache_file = {path}: .*; name another file"):
            async with open_cache(ENTRY, path, DIMENSIONS):
                pass


async def test_a_database_that_cannot_be_written_keeps_nothing_and_costs_no_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "c.db"
    caplog.set_level("INFO", "proxy.models.vector_store")
    async with open_cache(10**6, path, DIMENSIONS) as cache:
        assert cache
        model = Model("a")
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for _ in range(3):
                await cached(cache, "a", [[1]], model, lambda: True)
            assert await cache.get([]) == {}  # when all is written, or not
            other.execute("ROLLBACK")
        assert caplog.text.count("the cache cannot be written: database is locked") == 1
        await cached(cache, "a", [[1]], model, lambda: True)
        await cached(cache, "a", [[1]], model, lambda: True)
        assert model.computed == 4
    assert caplog.text.count("the cache can be written again") == 1


async def test_a_server_starts_without_its_cache_while_the_file_is_locked(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        async with open_cache(10**6, path, DIMENSIONS) as cache:
            assert cache is None


async def test_a_caller_that_leaves_leaves_the_thread_to_its_work(tmp_path: Path) -> None:
    await kept(tmp_path / "c.db")
    async with open_cache(10**6, tmp_path / "c.db", DIMENSIONS) as cache:
        assert cache

        async def ask(seed: int) -> None:
            await cached(cache, "a", [[n] for n in range(100 + seed, 150 + seed)], Model("a"), lambda: True)

        for seed in range(50):
            asked = [asyncio.create_task(ask(seed + n)) for n in range(5)]
            await asyncio.sleep(0)
            for task in asked[1:]:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
    assert await computed(tmp_path / "c.db") == 0


async def test_files_are_for_their_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    path.touch(0o644)
    async with open_cache(10**6, path, DIMENSIONS) as cache:
        assert cache
        await cached(cache, "a", [[1]], Model("a"), lambda: True)
        await cache.get([])
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert modes == dict.fromkeys(["c.db", "c.db-wal", "c.db-shm"], 0o600)


async def test_disk_space_of_a_larger_cache_is_freed(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    await kept(path, 2000)
    before = path.stat().st_size
    async with open_cache(100 * ENTRY, path, DIMENSIONS) as cache:
        assert cache
    assert path.stat().st_size < before / 4
