"""A disk that is full or cannot be written is named with its folder, and nothing half written stays."""

import errno
import os
import resource
from pathlib import Path

import pytest

from launcher.doctor import limits
from launcher.doctor.finding import Level
from launcher.host.disk import atomic_file
from tests.support.servers.stack import unused_port
from tests.support.servers.trillama import trillama


def little() -> None:
    """No file may be longer than 1 MiB: what writes more sees the same as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))


def test_a_start_on_a_full_disk_names_the_folder_and_leaves_nothing(tmp_path: Path) -> None:
    env = {"TRILLAMA_CACHE": str(tmp_path / "cache"), "LOGS_DIRECTORY": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    done = trillama("serve", "--demo", "--tiny", "--port", str(unused_port()), env=env, preexec=little)
    assert done.code == 75, done.err
    assert f"{tmp_path / 'cache' / 'demo'}/demo-" in done.err
    assert " free): make room, or set TRILLAMA_CACHE, or HOME, to a folder on another disk" in done.err
    assert "Traceback" not in done.err
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["lock"]


def half(path: Path, number: int) -> None:
    with atomic_file(path) as unfinished:
        unfinished.write_bytes(b"half")
        raise OSError(number, os.strerror(number))


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    with pytest.raises(OSError, match="No space left") as caught:
        half(path, errno.ENOSPC)
    assert caught.value.filename == str(path)
    assert list(path.parent.iterdir()) == []
    with atomic_file(path) as unfinished:
        unfinished.write_bytes(b"all")
    assert [one.read_bytes() for one in path.parent.iterdir()] == [b"all"]


def test_the_doctor_says_what_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TRILLAMA_CACHE", "STATE_DIRECTORY", "LOGS_DIRECTORY", "HF_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "a b"))
    monkeypatch.setattr(limits, "LEAST_FREE", 2**62)
    found = limits.folders()
    assert found.level is Level.WARN
    assert f"{tmp_path}/a b (" in found.text
    assert " free)" in found.text
    assert found.fix == f"make room: df -h '{tmp_path}/a b'"
    assert not (tmp_path / "a b").exists()
