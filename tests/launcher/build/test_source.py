"""The source of a build: the package, an archive of it or of llama.cpp alone, or a folder, without a network."""

import io
import os
import shutil
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from launcher.build import source
from launcher.build.build import BuildOptions, build, order_here
from launcher.build.source import LLAMA
from launcher.build.steps import Steps
from launcher.errors import EngineBuildError
from tests.support.servers.trillama import trillama
from tests.support.sources.toolchain import INSTALLED, ignore, remains


def llama(folder: Path) -> Path:
    """llama.cpp's folder, as far as it is looked at, with what git and an earlier build keep in it."""
    for name in (*LLAMA, ".git/HEAD", "build/old.o", "build-info.txt"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def packed(folder: Path, mode: Literal["w:gz", "w:xz"], *, below: str) -> Path:
    path = folder / "source.tar"
    with tarfile.open(path, mode) as archive:
        archive.add(llama(folder / "llama.cpp"), below)
    return path


@pytest.mark.parametrize(
    "given",
    [
        lambda at: packed(at, "w:gz", below="llama_cpp_python-0.3.36/vendor/llama.cpp"),
        lambda at: packed(at, "w:xz", below="llama.cpp"),
        lambda at: packed(at, "w:xz", below=""),
        lambda at: llama(at / "llama.cpp"),
    ],
    ids=["package", "llama.cpp in a folder", "its files", "a folder"],
)
async def test_llama_cpp_is_found_in_a_given_source_and_copied(tmp_path: Path, given: Callable[[Path], Path]) -> None:
    here = given(tmp_path)
    steps = Steps(env=os.environ, log=tmp_path / "log", report=ignore)
    found = await source.obtain(here, tmp_path / "work", steps)
    assert found.is_relative_to(tmp_path / "work")
    assert all((found / name).is_file() for name in (*LLAMA, "build-info.txt"))
    assert (found / ".git").exists() is (found / "build").exists() is here.is_file()
    assert all((tmp_path / "llama.cpp" / name).is_file() for name in LLAMA)


async def test_a_given_source_is_built_without_a_package_index(
    build_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    seen: list[str] = []
    await build(BuildOptions(source=llama(tmp_path / "llama.cpp")), lambda progress: seen.append(progress.step))
    assert list(dict.fromkeys(seen)) == ["copying", "configuring", "compiling", "checking vectors"]
    assert remains(build_cache) == INSTALLED


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.write_bytes(b"no archive"), r"unpacking failed with 1:\n.*source.tar: "),
        (lambda path: llama(path) / LLAMA[1], "no source of llama.cpp with its server in"),
        (lambda _: None, r"--source .*source.tar: there is no such file"),
    ],
    ids=["no archive", "another source", "nothing"],
)
async def test_what_is_no_source_is_refused(
    build_cache: Path, tmp_path: Path, make: Callable[[Path], object], said: str
) -> None:
    given = tmp_path / "source.tar"
    if isinstance(unwanted := make(given), Path):
        unwanted.unlink()
    with pytest.raises(EngineBuildError, match=said):
        await build(BuildOptions(source=given), ignore)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (lambda at: at, "there is no source of llama.cpp with its server in "),
        (lambda _: Path(os.devnull), "--source /dev/null: it is neither an archive nor a folder"),
        (llama, "--source .*: the cache folder .*/cache is in it: set TRILLAMA_CACHE"),
    ],
    ids=["any folder", "a device", "a folder with the cache in it"],
)
def test_what_cannot_be_a_source_is_refused_before_it_is_read(
    tmp_path: Path, given: Callable[[Path], Path], said: str
) -> None:
    with pytest.raises(EngineBuildError, match=said):
        source.require_source(given(tmp_path), tmp_path / "cache")


@pytest.mark.parametrize("name", ["../outside", "/outside"])
def test_an_archive_writes_nothing_outside_its_folder(tmp_path: Path, name: str) -> None:
    entry, path = tarfile.TarInfo(name), tmp_path / "source.tar"
    entry.size = 1
    with tarfile.open(path, "w") as archive:
        archive.addfile(entry, io.BytesIO(b"x"))
    (tmp_path / "in").mkdir()
    if name.startswith("/"):  # taken as relative
        source.unpack(path, tmp_path / "in" / "it")
        assert (tmp_path / "in" / "it" / "outside").is_file()
    else:
        with pytest.raises(tarfile.FilterError):
            source.unpack(path, tmp_path / "in" / "it")
    assert not (tmp_path / "in" / "outside").exists()


def test_an_archive_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = packed(tmp_path, "w:xz", below="x")
    source.unpack(path, tmp_path / "in")
    monkeypatch.setattr(source, "MAX_FILES", 3)
    with pytest.raises(tarfile.TarError, match="more than 3 files"):
        source.unpack(path, tmp_path / "in")


def test_another_source_is_another_order(tmp_path: Path) -> None:
    folder = llama(tmp_path / "llama.cpp")
    first = order_here(BuildOptions(source=folder))
    assert first == order_here(BuildOptions(source=folder)) != order_here(BuildOptions())
    (folder / "build" / "old.o").write_text("changed")
    assert first == order_here(BuildOptions(source=folder))
    (folder / LLAMA[2]).write_text("changed")
    assert first != order_here(BuildOptions(source=folder))


def test_without_build_tools_a_given_source_names_them(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("cc", "c++"):
        (tools / name).symlink_to(shutil.which(name) or os.devnull)
    if any((Path(sys.executable).parent / name).exists() for name in ("cmake", "ninja")):
        pytest.skip("they are in the environment of these tests")
    env = {"TRILLAMA_CACHE": str(tmp_path / "cache"), "PATH": str(tools)}
    done = trillama("engine", "build", "--source", str(llama(tmp_path / "llama.cpp")), env=env)
    assert done.code == 70
    assert "there is no cmake and ninja, and with --source nothing is downloaded: apt-get install" in done.err
