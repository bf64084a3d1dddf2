"""Unusual hosts: no home, other users, read-only disks, odd locales. Each gives a sentence and the right exit code."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from launcher.errors import ConfigError, DiskError
from launcher.settings.folders import (
    LONGEST_BASE,
    cache_dir,
    explain_write_error,
    hub_cache,
    log_dir,
    runtime_base,
    write_obstacle,
)

NOBODY = "setpriv --reuid 12345 --regid 0 --clear-groups".split()  # no entry in passwd; root's files are not its own
LOOKS = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")  # but it may read where the tests lie


def run(*arguments: str, through: Sequence[str] = (), **env: str) -> tuple[int, str]:
    """The exit code and all output of `trillama ARGUMENTS` in that environment alone."""
    done = subprocess.run(
        (*through, sys.executable, "-m", "launcher", *arguments),
        env={"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", **env},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        timeout=60,
        check=False,
    )
    output = (done.stdout + done.stderr).decode(errors="replace")
    assert "Traceback" not in output
    assert "please report" not in output
    return done.returncode, output


def as_root(tool: str) -> None:
    if os.geteuid() != 0 or not shutil.which(tool):
        pytest.skip(f"needs root and {tool}")


@pytest.fixture
def quick() -> Iterator[Path]:
    """A configuration that all may read, whose engine fails at once: for what is looked at beside it."""
    with tempfile.TemporaryDirectory(prefix="o-") as folder:
        Path(folder).chmod(0o755)
        path = Path(folder, "host.toml")
        path.write_text('demo = true\nport = 0\n[engine]\nllama_server = "/bin/false"\n')
        yield path


@pytest.mark.parametrize("home", [{}, {"HOME": "/"}])
def test_a_user_without_a_home_is_told_what_to_set(quick: Path, home: dict[str, str]) -> None:
    as_root("setpriv")
    who = [*NOBODY, *LOOKS]
    code, output = run("serve", "--demo", "--tiny", "--port", "0", through=who, **home)
    assert code == 78
    assert "set TRILLAMA_CACHE, or HOME," in output or "set HOME, or TRILLAMA_CACHE" in output
    code, output = run("doctor", "--config", str(quick), through=who, **home)
    assert code == 1
    assert "fail folders" in output


def test_without_a_home_no_model_is_looked_for_in_the_working_directory() -> None:
    as_root("setpriv")
    for command in ("list", "pull"):
        code, output = run("models", command, through=[*NOBODY, *LOOKS], HF_HUB_OFFLINE="1")
        assert code == 78
        assert "HF_HOME for the models" in output


def test_one_variable_is_enough_for_a_user_without_a_home(tmp_path: Path) -> None:
    as_root("setpriv")
    tmp_path.chmod(0o755)
    place = tmp_path / "kept"
    place.mkdir()
    os.chown(place, 12345, 0)
    env = {"TRILLAMA_CACHE": str(place), "HF_HOME": str(place / "hf")}
    code, output = run("embed", "--demo", "--tiny", "hello", through=[*NOBODY, *LOOKS], **env)
    assert code == 0, output
    assert (place / "log").is_dir()


def test_a_read_only_disk_is_named_with_what_moves_the_folder() -> None:
    as_root("unshare")
    mounted = 'mount -t tmpfs -o ro none /srv && exec "$@"'
    through = ("unshare", "--mount", "sh", "-c", mounted, "x")
    if subprocess.run((*through, "true"), capture_output=True, check=False).returncode:
        pytest.skip("no mount namespace can be made here")
    code, output = run("serve", "--demo", "--tiny", "--port", "0", through=through, HOME="/srv/me")
    assert code == 75
    assert "Read-only file system: set TRILLAMA_CACHE, or HOME, to a folder on another disk" in output


def test_a_host_without_proc_is_looked_at_all_the_same(quick: Path, tmp_path: Path) -> None:
    as_root("unshare")
    through = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "x")
    if subprocess.run((*through, "true"), capture_output=True, check=False).returncode:
        pytest.skip("no mount namespace can be made here")
    _, output = run("doctor", "--config", str(quick), through=through, HOME=str(tmp_path))
    assert "ok   memory" in output
    assert " stale folders " in output  # others on this machine may have left some


@pytest.mark.parametrize(
    "locale", [{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"PYTHONIOENCODING": "latin-1"}]
)
def test_no_locale_keeps_a_line_from_being_written(tmp_path: Path, locale: dict[str, str]) -> None:
    _, output = run("doctor", "--config", "/nonexistent", HOME=str(tmp_path), **locale)
    assert "ok   packages" in output
    assert "fail configuration" in output


def test_a_folder_whose_name_is_not_utf_8_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRILLAMA_CACHE", os.fsdecode(b"/caf\xe9"))
    with pytest.raises(ConfigError, match="is not in UTF-8: set TRILLAMA_CACHE to a folder whose name is"):
        cache_dir()


def test_a_folder_for_sockets_that_cannot_be_used_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    long = tmp_path / ("x" * LONGEST_BASE)
    long.mkdir()
    for given in ("/nonexistent", "/etc/hostname", str(long)):
        monkeypatch.setenv("XDG_RUNTIME_DIR", given)
        assert str(runtime_base()) != given
    with tempfile.TemporaryDirectory(prefix="r-") as short:
        monkeypatch.setenv("XDG_RUNTIME_DIR", short)
        assert str(runtime_base()) == short


def test_what_the_system_refuses_is_explained_by_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRILLAMA_CACHE", str(tmp_path / "kept"))
    denied = explain_write_error(PermissionError(13, "Permission denied", str(tmp_path / "kept/demo/lock")))
    assert isinstance(denied, ConfigError)
    full = explain_write_error(OSError(28, "No space left on device", str(tmp_path / "kept")))
    assert isinstance(full, DiskError)
    assert "TRILLAMA_CACHE" in str(full)
    assert explain_write_error(FileNotFoundError(2, "No such file", "/etc/other")) is None
    assert explain_write_error(OSError("without a file")) is None


def test_a_cache_is_where_the_user_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("LOGS_DIRECTORY", raising=False)
    for given, found in (("", ".cache/trillama"), ("~/x", "x")):
        monkeypatch.setenv("TRILLAMA_CACHE", given)
        assert cache_dir() == tmp_path / found
    assert tmp_path in log_dir().parents
    assert hub_cache().is_absolute()
    assert write_obstacle(tmp_path / "not/yet/there") is None
    (tmp_path / "file").touch()
    assert write_obstacle(tmp_path / "file/below") == f"{tmp_path / 'file'} is not a folder"
