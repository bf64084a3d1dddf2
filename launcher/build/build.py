"""Builds llama-server from source, for this machine's processor and, if asked, its GPUs."""

import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from launcher.build import backends, portable, source
from launcher.build.checks.vectors import SOFTWARE_QUANTIZATION
from launcher.build.compilation import Compilation, Compiled, compile_engine
from launcher.build.patches.lean import FLAG, LEAN
from launcher.build.patches.media import MEDIA_FLAG, POOL_MEDIA
from launcher.build.patches.patch import apply, digest
from launcher.build.patches.tiles import TILES
from launcher.build.steps import ReportProgress, Steps
from launcher.engine import argv, build_record
from launcher.engine.build_record import ComputeBackend, Order, Record
from launcher.engine.discovery import ELSEWHERE, Origin, built_path, probe
from launcher.errors import EngineBuildError, EngineError
from launcher.host import processor
from launcher.settings.folders import noexec

PATCHES = (LEAN, POOL_MEDIA, TILES)
NOT_NATIVE = re.compile(r"-DGGML_NATIVE(:BOOL)?=(OFF|NO|FALSE|0)$", re.IGNORECASE)
PLAIN = frozenset({"sse4_2", "avx", "avx2", "bmi2", "f16c", "fma"})  # what llama.cpp uses of x86 then


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """What to build, and where.

    `stock`: without LEAN and POOL_MEDIA. `without_images`: without POOL_MEDIA. `source`: an archive or a folder instead
    of the package. `architectures`: CUDA's, instead of those of the GPUs in this machine. `out`: a portable folder
    instead of the cache folder.
    """

    backend: ComputeBackend = ComputeBackend.CPU
    stock: bool = False
    without_images: bool = False
    source: Path | None = None
    architectures: str = ""
    out: Path | None = None

    @property
    def binary(self) -> Path:
        """Where the engine will be installed."""
        return self.out.absolute() / "llama-server" if self.out else built_path()


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """The installed binary, and what to tell the user about it."""

    path: Path
    note: str


async def build(options: BuildOptions, report: ReportProgress) -> Built:
    """Build llama-server into the cache folder or `options.out`, replacing the one there.

    Applies our patches as far as they fit, LEAN and POOL_MEDIA only without `stock`, and installs the engine only if
    its vectors are right (`compilation`). Needs what `backends` says; takes five minutes on two cores, more for GPUs.
    Raises EngineBuildError with what to install, or with the last lines of the step that failed.
    If cancelled or failed, it leaves no process and no file behind (except the log of an engine that did not serve),
    and the previous engine stays.
    """
    cache, path = built_path().parent, _search_path()
    source.require_source(options.source, cache)
    source.require_tools(options.source, path)
    order = order_here(options)
    backends.require(order, path)
    if options.out:
        portable.require_free(options.out)
    if noexec(cache):
        raise EngineBuildError(f"programs may not be run in {cache} (noexec): {ELSEWHERE}")
    with _exclusive(cache) as folder:
        path = os.pathsep.join((path, str(folder / "venv" / "bin")))
        env = {**os.environ, "PATH": path, **backends.build_environment(order, path)}
        steps = Steps(env=env, log=folder / "log", report=report)
        llama = await source.obtain(options.source, folder, steps)
        why_stock = "as requested" if options.stock else apply(LEAN, llama)
        why_no_media = "as requested" if options.stock or options.without_images else apply(POOL_MEDIA, llama)
        why_tiles = apply(TILES, llama)
        compilation = Compilation(source=llama, folder=folder, order=order, shared=options.out is not None)
        made = await compile_engine(compilation, steps)
        note = "; ".join(_notes(made, why_stock, why_no_media, why_tiles))
        record = Record(order=order, processor=processor.name(), left_out=made.left_out, note=note)
        if options.out:
            portable.install_folder(made.binary.parent, options.binary.parent, record)
        else:
            build_record.install_build(made.binary, options.binary, record)
    return Built(path=options.binary, note=note)


async def up_to_date(options: BuildOptions) -> Built | None:
    """The installed engine, if a build would only repeat it: it runs; same source, options and processor.

    Raises EngineBuildError if the source is not there.
    """
    source.require_source(options.source, built_path().parent)
    record = build_record.read_record(options.binary) if options.binary.is_file() else None
    if record is None or record.order != order_here(options):
        return None
    try:
        await probe((str(options.binary),), Origin.BUILT, argv.environment(os.environ))
    except EngineError:
        return None  # it is truncated, or a library that it needs is gone
    return Built(path=options.binary, note=record.note)


def order_here(options: BuildOptions) -> Order:
    """The order for this machine's processor."""
    cmake = tuple(shlex.split(os.environ.get("CMAKE_ARGS", "")))
    here = processor.instructions()
    return Order(
        source=f"{source.identity(options.source)} {digest(PATCHES)}",
        backend=options.backend,
        stock=options.stock,
        without_images=options.without_images,
        architectures=options.architectures,
        cmake=cmake,
        instructions=tuple(sorted(here & PLAIN if any(map(NOT_NATIVE.match, cmake)) else here)),
    )


def _search_path() -> str:
    """Where tools are searched for: PATH, and our own Python environment, which may not be on it."""
    return os.pathsep.join((os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)))


@contextmanager
def _exclusive(parent: Path) -> Iterator[Path]:
    """An empty folder for this build alone, deleted afterwards. Raises EngineBuildError if another build is running."""
    parent.mkdir(parents=True, exist_ok=True)
    folder = parent / "build"
    try:
        with FileLock(parent / ".lock", timeout=0):
            shutil.rmtree(folder, ignore_errors=True)  # left by a build that was killed
            folder.mkdir()
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
    except Timeout as error:
        raise EngineBuildError(f"another build is running in {parent}: wait for it to end") from error


def _notes(made: Compiled, why_stock: str | None, why_no_media: str | None, why_tiles: str | None) -> Iterator[str]:
    """What to tell the user about the engine; `why_…` is why its source lacks a patch."""
    if FLAG in made.engine.flags:
        yield f"it skips logits, which embeddings do not use ({FLAG}), and its vectors are the same to the last bit"
    else:
        yield f"stock llama.cpp ({why_stock or 'our edit had no effect'}): it computes logits, which are not used"
    if MEDIA_FLAG in made.engine.flags:
        yield f"it takes images ({MEDIA_FLAG})"
    else:
        yield f"it takes no images ({why_no_media or 'our edit had no effect'})"
    yield f"llama.cpp's own AMX code ({why_tiles})" if why_tiles else "gcc's fault with AMX is worked around"
    if made.left_out:
        yield f"it does not use AMX: with AMX, {made.fault}"
    yield f"its vectors agree with F32 to a cosine of {made.cosine:.4f}{_where(made)}"


def _where(made: Compiled) -> str:
    """What computed the vectors that were checked, if a GPU should have."""
    if not made.devices.has_gpu_backend:
        return ""
    if not made.devices.gpus:
        return " on the CPU, as no GPU is here"
    limits = f", a software device: checked with {SOFTWARE_QUANTIZATION} and short texts only"
    return f" on {made.devices.gpus[0].description}{limits if made.devices.software else ''}"
