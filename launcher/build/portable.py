"""A portable folder with an engine and the libraries that it needs (`trillama engine build --out DIR`).

It contains llama.cpp's own libraries, and those of the toolkit that a bare machine lacks, such as cuBLAS. Programs and
libraries search their own folder first. Libraries of the system and the driver are not copied.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from launcher.engine import build_record
from launcher.engine.build_record import Record
from launcher.errors import EngineBuildError

PROGRAMS = ("llama-server", "llama-bench")  # the second measures an engine alone
DEFINITIONS = {
    "BUILD_SHARED_LIBS": "ON",  # both programs share the kernels, most of what is built
    "CMAKE_BUILD_RPATH_USE_ORIGIN": "ON",
    "CMAKE_BUILD_RPATH": "$ORIGIN",
}
SYSTEM = re.compile(r"/(usr/)?lib(32|64)?/")
LACKING = re.compile(r"libgomp\.")  # a library of the system that a bare Debian lacks
LOADED = re.compile(r"^\s*(\S+) => (/.+) \(0x", re.MULTILINE)  # by ldd


def programs(source: Path) -> tuple[str, ...]:
    """The PROGRAMS that this source can build."""
    return tuple(name for name in PROGRAMS if name == PROGRAMS[0] or (source / "tools" / name).is_dir())


def require_free(out: Path) -> None:
    """Raises EngineBuildError unless `out` can be replaced: it does not exist, is empty, or has an earlier engine."""
    if out.exists() and not (out.is_dir() and (build_record.read_record(out / PROGRAMS[0]) or not any(out.iterdir()))):
        raise EngineBuildError(f"--out {out}: it contains something other than an engine; name a new folder")


def install_folder(built: Path, out: Path, record: Record) -> Path:
    """Put the programs in the folder `built` and their libraries into `out`; returns the engine. Raises OSError."""
    unfinished = out.with_name(f"{out.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    made = [built / name for name in PROGRAMS if (built / name).is_file()]
    for program in made:
        shutil.copy2(program, unfinished)
    for name, path in {found for program in made for found in _libraries(program)}:
        shutil.copy2(path, unfinished / name)  # under the name that is loaded, not that of the file a link points to
    build_record.write_record(unfinished / PROGRAMS[0], record)
    if out.exists():
        shutil.rmtree(out)
    unfinished.replace(out)
    return out / PROGRAMS[0]


def _libraries(program: Path) -> Iterator[tuple[str, Path]]:
    """Name and file of each library to copy; none on a system without ldd, such as macOS."""
    if not (ldd := shutil.which("ldd")):
        return
    text = subprocess.run((ldd, str(program)), capture_output=True, text=True, check=False).stdout
    for name, path in LOADED.findall(text):
        if not SYSTEM.match(path) or LACKING.match(name):
            yield name, Path(path)
