"""Compiles the patched source, probes the engine and checks its vectors.

A miscompiled engine is compiled again without AMX, if the processor has AMX: the newest instructions are those that
compilers, hypervisors and llama.cpp itself get wrong. Without AMX the engine is slower, but right.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from launcher.build import backends, portable
from launcher.build.checks.media import check_media
from launcher.build.checks.vectors import check_engine
from launcher.build.patches.media import MEDIA_FLAG
from launcher.build.steps import Progress, Steps
from launcher.engine import argv
from launcher.engine import devices as gpu
from launcher.engine.build_record import ComputeBackend, Order
from launcher.engine.devices import Devices
from launcher.engine.discovery import Engine, Origin, probe
from launcher.errors import EngineBuildError, EngineError, Miscompiled
from launcher.host.cores import usable_cores
from launcher.host.processor import AMX
from launcher.processes.child import crash_of

NO_AMX = " ".join(f"-mno-{name.replace('_', '-')}" for name in AMX)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """An engine that may be installed: its vectors have at least `cosine` to those of the same numbers in F32.

    `devices` computed them. `left_out` are instructions of this processor that it does not use, because of `fault`.
    """

    engine: Engine
    devices: Devices
    cosine: float
    left_out: tuple[str, ...] = ()
    fault: str = ""

    @property
    def binary(self) -> Path:
        return Path(self.engine.argv[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Compilation:
    """What to compile: `source`, in `folder`, as `order` says; with `shared` libraries for a portable folder."""

    source: Path
    folder: Path
    order: Order
    shared: bool = False

    def definitions(self, path: str) -> Mapping[str, str]:
        """cmake's definitions; the user's own (`order.cmake`) come after them."""
        return {
            "CMAKE_BUILD_TYPE": "Release",
            "BUILD_SHARED_LIBS": "OFF",  # one file
            "LLAMA_BUILD_TESTS": "OFF",
            "LLAMA_BUILD_EXAMPLES": "OFF",
            "LLAMA_BUILD_UI": "OFF",
            "LLAMA_USE_PREBUILT_UI": "OFF",  # else cmake downloads one
            "LLAMA_OPENSSL": "OFF",  # it listens on a UNIX socket only, and downloads nothing
            **(portable.DEFINITIONS if self.shared else {}),
            **backends.definitions(self.order, path),
        }


async def compile_engine(compilation: Compilation, steps: Steps) -> Compiled:
    """Compile and check. Raises EngineBuildError if that gives no engine with right vectors."""
    try:
        return await _attempt(compilation, compilation.folder / "build", steps)
    except Miscompiled as error:
        amx = tuple(name for name in compilation.order.instructions if name.startswith("amx"))
        if not amx or compilation.order.backend is not ComputeBackend.CPU:  # if the GPU computes, AMX is not the cause
            raise
        try:
            made = await _attempt(compilation, compilation.folder / "build-without-amx", _without_amx(steps))
        except EngineBuildError as second:
            raise EngineBuildError(f"{error}; compiled again without AMX: {second}") from second
        return replace(made, left_out=amx, fault=str(error))


def _without_amx(steps: Steps) -> Steps:
    """cmake takes compiler flags from the environment; these override `-march=native`."""
    given = {name: f"{steps.env.get(name, '')} {NO_AMX}".strip() for name in ("CFLAGS", "CXXFLAGS")}
    return replace(steps, env={**steps.env, **given}, suffix=" without AMX")


async def _attempt(compilation: Compilation, build: Path, steps: Steps) -> Compiled:
    """Raises Miscompiled, or another EngineBuildError."""
    given = (f"-D{name}={value}" for name, value in compilation.definitions(steps.env["PATH"]).items())
    configure = ("-S", str(compilation.source), "-B", str(build), "-G", "Ninja")
    await steps.run("configuring", "cmake", *configure, *given, *compilation.order.cmake)
    jobs = str(usable_cores())  # ninja's default counts cores that we may not use
    programs = portable.programs(compilation.source) if compilation.shared else portable.PROGRAMS[:1]
    await steps.run("compiling", "cmake", "--build", str(build), "--parallel", jobs, "--target", *programs)
    binary = build / "bin" / "llama-server"
    with _asked("--version"):
        engine = await probe((str(binary),), Origin.BUILT, argv.environment(os.environ))
    with _asked("--list-devices"):
        devices = await gpu.read_devices(engine)
    steps.report(Progress(step="checking vectors"))
    cosine = await check_engine(engine, build / "check", software=devices.software)
    if MEDIA_FLAG in engine.flags:
        steps.report(Progress(step="checking images"))
        await check_media(engine, build / "check", software=devices.software)
    return Compiled(engine=engine, devices=devices, cosine=cosine)


@contextmanager
def _asked(flag: str) -> Iterator[None]:
    """Turns an engine's failure to answer into Miscompiled, or EngineBuildError."""
    try:
        yield
    except EngineError as error:
        if crash := crash_of(error.returncode):
            raise Miscompiled(f"the built engine dies of {crash} on {flag}") from error
        raise EngineBuildError(f"the built engine is unusable: {error}") from error
