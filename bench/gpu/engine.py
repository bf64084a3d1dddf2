"""The engine: built from `.gpu/source`, packed in parts that a small transfer carries, and taken back from them."""

import asyncio
import hashlib
import os
import shutil
import sys
import tarfile
from pathlib import Path

from launcher.engine import argv, discovery
from launcher.engine.discovery import Engine, Origin

CARRIED = Path(__file__).parents[2] / ".gpu"
PART_BYTES = 15 * 2**20
SUMS = "engine.sha256"
SERVER = "llama-server"
LEFT = "libcublas"  # half a gigabyte of the toolkit, which is on each machine that such an engine is for
TOOLKITS = ("/usr/local/cuda/lib64", *(f"{folder}/nvidia/cu13/lib" for folder in sys.path))


class NoEngine(Exception):
    """There is no engine for this machine. `args[0]` says what to do."""


async def build_offline(folder: Path, *, cuda: bool) -> None:
    """Build into `folder` from what `pack.sh` has packed, as a user without a network does. Raises NoEngine."""
    (source,) = (CARRIED / "source").glob("*.tar.xz")
    shutil.rmtree(folder, ignore_errors=True)
    command = (sys.executable, "-m", "launcher", "engine", "build", *["--cuda"] * cuda)
    env = {**os.environ, "TRILLAMA_CACHE": str(folder.parent / "cache")}  # a user's own engine stays as it is
    process = await asyncio.create_subprocess_exec(*command, "--source", str(source), "--out", str(folder), env=env)
    try:
        if await process.wait():
            raise NoEngine("the engine cannot be built: see the log")
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


async def find_or_unpack(folder: Path, *, on_gpu: bool) -> Engine:
    """The engine in `folder`, where a build or `unpack_engine` put it; for the CPU, else the one trillama would use.

    Raises NoEngine.
    """
    binary = folder / SERVER
    if not binary.is_file() and (CARRIED / "engine" / SUMS).is_file() and on_gpu:
        await asyncio.to_thread(unpack_engine, CARRIED / "engine", folder)
    if binary.is_file():
        return await discovery.probe((str(binary),), Origin.CONFIGURED, argv.environment(os.environ))
    if on_gpu:
        raise NoEngine(f"no engine: run the phase build first, or put its files ({SUMS}, engine.…) into .gpu/engine")
    return await discovery.find_engine(None)


def pack_engine(folder: Path, out: Path) -> list[Path]:
    """Write `folder`, an engine and its libraries but LEFT, into `out` as parts of at most PART_BYTES. Blocks."""
    whole = out / "engine.tar.xz"
    with tarfile.open(whole, "w:xz", preset=1) as archive:
        for one in sorted(folder.iterdir()):
            if one.is_file() and not one.name.startswith((LEFT, ".")):
                archive.add(one, one.name)
    parts: list[Path] = []
    with whole.open("rb") as file:
        while part := file.read(PART_BYTES):
            parts.append(out / f"engine.{len(parts):02}")
            parts[-1].write_bytes(part)
    whole.unlink()
    sums = [f"{hashlib.sha256(one.read_bytes()).hexdigest()}  {one.name}\n" for one in parts]
    (out / SUMS).write_text("".join(sums), encoding="ascii")
    return parts


def unpack_engine(source: Path, folder: Path) -> None:
    """Put the engine whose parts are in `source` into `folder`, and links to LEFT. Blocks.

    Raises NoEngine if a part is damaged.
    """
    whole = folder.with_suffix(".tar.xz")
    folder.mkdir(parents=True, exist_ok=True)
    with whole.open("wb") as file:
        for line in (source / SUMS).read_text(encoding="ascii").splitlines():
            digest, name = line.split()
            part = (source / name).read_bytes()
            if hashlib.sha256(part).hexdigest() != digest:
                raise NoEngine(f"{source / name} is damaged: fetch it again")
            file.write(part)
    with tarfile.open(whole) as archive:
        archive.extractall(folder, filter="data")
    whole.unlink()
    for library in (one for toolkit in TOOLKITS for one in Path(toolkit).glob(f"{LEFT}*.so.*")):
        link = folder / library.name
        if not link.is_symlink():
            link.symlink_to(library)
