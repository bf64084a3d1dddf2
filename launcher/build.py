"""`trillama engine build`: llama-server from source, for this machine's own processor or NVIDIA GPU."""

import asyncio
import os
import re
import shutil
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from launcher import command
from launcher.child import last_lines, running
from launcher.engine import Engine, Origin, built_path, probe
from launcher.errors import EngineBuildError, EngineError
from launcher.lean import FLAG, make_lean
from launcher.lean_check import check

# A release of this package carries one state of llama.cpp's source: pinned, as our traps were measured on this one.
SOURCE = "llama-cpp-python==0.3.36"
GRACE_S = 2.0
REPORT_INTERVAL_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """`step` for a user to read; `done` of `total` files are compiled, where that is known."""

    step: str
    done: int = 0
    total: int | None = None


Report = Callable[[Progress], None]
Run = Callable[..., Awaitable[None]]  # a step's name, and its command line


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """The binary in its place, and what to tell of it."""

    path: Path
    note: str


@dataclass(frozen=True, slots=True)
class _Folder:
    """The place of one build; all of it goes when the build ends."""

    path: Path

    @property
    def bin(self) -> Path:
        return self.path / "venv" / "bin"

    @property
    def source(self) -> Path:
        return next(self.path.glob("source/*/vendor/llama.cpp"))

    @property
    def build(self) -> Path:
        return self.path / "build"

    @property
    def log(self) -> Path:
        return self.path / "log"


async def build(*, cuda: bool, stock: bool, report: Report) -> Built:
    """Build llama-server into the cache folder, in place of the one that is there.

    Its source gets our edit (`launcher.lean`) unless `stock`, or where it does not apply; an engine that leaves the
    logits out is installed only if its vectors stay the same. Needs a C++ compiler, and nvcc for `cuda`; takes five
    minutes on two cores, and far longer for CUDA. Raises EngineBuildError with what to install, or with the last lines
    of the step that failed. Cancelled or failed, it leaves no process and no file behind (but the log of an engine that
    did not serve), and the engine that was there stays.
    """
    require_compilers(os.environ.get("PATH", os.defpath), cuda=cuda)
    final = built_path()
    with _exclusive(final.parent) as folder:
        run = _runner(folder, report)
        await _unpacked(folder, run)
        why_stock = "as was asked" if stock else make_lean(folder.source)
        binary = await _compiled(folder, cuda, run)
        try:
            engine = await probe((str(binary),), Origin.BUILT, command.environment(os.environ))
        except EngineError as error:
            raise EngineBuildError(f"what was built from {SOURCE} is of no use: {error}") from error
        note = await _checked(engine, folder, why_stock, report)
        binary.replace(final)  # at once: a server that runs the old one keeps it
    return Built(path=final, note=note)


def require_compilers(path: str, *, cuda: bool) -> None:
    """Raise EngineBuildError with the package to install, if there is nothing to compile with."""
    for name, default in (("CC", "cc"), ("CXX", "c++")):  # as cmake looks for them
        compiler = (os.environ.get(name) or default).split()[0]  # it may carry flags
        if not shutil.which(compiler, path=path):
            raise EngineBuildError(f"there is no compiler {compiler}: apt-get install build-essential, or set ${name}")
    if cuda and nvcc(path) is None:
        raise EngineBuildError("there is no nvcc: install NVIDIA's CUDA toolkit, and put its bin folder on PATH")


def nvcc(path: str) -> str | None:
    """CUDA's compiler; its installer leaves it off PATH."""
    return shutil.which("nvcc", path=os.pathsep.join((path, "/usr/local/cuda/bin")))


def configuration(compiler: str | None) -> tuple[str, ...]:
    """cmake's definitions; `compiler` is CUDA's, or None to build for the processor alone."""
    given = {
        "CMAKE_BUILD_TYPE": "Release",
        "BUILD_SHARED_LIBS": "OFF",  # one file, that can be moved
        "LLAMA_BUILD_TESTS": "OFF",
        "LLAMA_BUILD_EXAMPLES": "OFF",
        "LLAMA_BUILD_UI": "OFF",
        "LLAMA_USE_PREBUILT_UI": "OFF",  # else cmake downloads one
        "LLAMA_OPENSSL": "OFF",  # it only listens on a unix socket, and downloads nothing
        **({"GGML_CUDA": "ON", "CMAKE_CUDA_COMPILER": compiler} if compiler else {}),
    }
    return tuple(f"-D{name}={value}" for name, value in given.items())


def progress_in(step: str, line: str) -> Progress:
    """The progress in ninja's last line, e.g. `[17/206] Building CXX object …`."""
    found = re.match(r"\[(\d+)/(\d+)\]", line)
    return Progress(step=step, done=int(found[1]), total=int(found[2])) if found else Progress(step=step)


@contextmanager
def _exclusive(parent: Path) -> Iterator[_Folder]:
    """An empty folder that only one build has, gone afterwards. Raises EngineBuildError if another build runs."""
    parent.mkdir(parents=True, exist_ok=True)
    folder = _Folder(parent / "build")
    try:
        with FileLock(parent / ".lock", timeout=0):
            shutil.rmtree(folder.path, ignore_errors=True)  # of a build that was killed
            folder.path.mkdir()
            try:
                yield folder
            finally:
                shutil.rmtree(folder.path, ignore_errors=True)
    except Timeout as error:
        raise EngineBuildError(f"another build is running in {parent}: wait for it to end") from error


def _runner(folder: _Folder, report: Report) -> Run:
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), str(folder.bin)))

    async def run(step: str, *argv: str) -> None:
        await _run(step, argv, {**os.environ, "PATH": path}, folder.log, report)

    return run


async def _unpacked(folder: _Folder, run: Run) -> None:
    """The source, and what compiles it."""
    venv, pip = folder.path / "venv", (str(folder.bin / "python"), "-m", "pip")  # the one that runs us may have no pip
    await run("preparing", sys.executable, "-m", "venv", str(venv))
    path = os.environ.get("PATH", os.defpath)
    if missing := [tool for tool in ("cmake", "ninja") if not shutil.which(tool, path=path)]:
        await run("installing build tools", *pip, "install", *missing)
    package = SOURCE.split("==", maxsplit=1)[0]
    options = ("--no-deps", "--no-binary", package, "--dest", str(folder.path))
    await run("downloading llama.cpp", *pip, "download", *options, SOURCE)
    archive, unpacked = next(folder.path.glob("*.tar.gz")), folder.path / "source"
    await run("unpacking", sys.executable, "-m", "tarfile", "--filter", "data", "-e", str(archive), str(unpacked))


async def _compiled(folder: _Folder, cuda: bool, run: Run) -> Path:
    configure = ("-S", str(folder.source), "-B", str(folder.build), "-G", "Ninja")
    compiler = nvcc(os.environ.get("PATH", os.defpath)) if cuda else None
    await run("configuring", "cmake", *configure, *configuration(compiler))
    await run("compiling", "cmake", "--build", str(folder.build), "--target", "llama-server")
    return folder.build / "bin" / "llama-server"


async def _checked(engine: Engine, folder: _Folder, why_stock: str | None, report: Report) -> str:
    """What to tell of an engine that may be installed; `why_stock` is why its source was left as it is."""
    if FLAG not in engine.flags:
        return f"stock llama.cpp ({why_stock or 'our edit had no effect'}): it computes logits that nobody reads"
    report(Progress(step="checking vectors"))
    await check(engine, folder.path / "check")
    return f"it leaves out the logits that nobody reads ({FLAG}); the vectors are the same to the last bit"


async def _run(step: str, argv: tuple[str, ...], env: Mapping[str, str], log: Path, report: Report) -> None:
    """One step, to its end. Each is a process of its own, so that cancelling ends it at once."""
    log.write_bytes(b"")
    report(Progress(step=step))
    async with running(argv, env=env, grace_s=GRACE_S, output=log) as process:
        while process.returncode is None:
            with suppress(TimeoutError):
                async with asyncio.timeout(REPORT_INTERVAL_S):
                    await process.wait()
            report(progress_in(step, last_lines(log, 1)))
    if process.returncode != 0:
        raise EngineBuildError(f"{step} failed with {process.returncode}:\n{last_lines(log, 20)}")
