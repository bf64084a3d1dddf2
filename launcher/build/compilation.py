"""Compiles the patched source, probes the engine and checks its vectors.

A miscompiled engine is compiled again without AMX, if the processor has AMX: the newest instructions are those that
compilers, hypervisors and llama.cpp itself get wrong. Without AMX the engine is slower, but right.
"""

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from launcher.build.check import check_engine
from launcher.build.steps import Progress, Steps
from launcher.engine import argv
from launcher.engine.build_record import Order
from launcher.engine.discovery import Engine, Origin, probe
from launcher.errors import EngineBuildError, EngineError, Miscompiled
from launcher.host.cores import usable_cores
from launcher.host.processor import AMX
from launcher.processes.child import SIGILL_CODES

NO_AMX = " ".join(f"-mno-{name.replace('_', '-')}" for name in AMX)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """An engine that may be installed: its vectors have at least `cosine` to those of the same numbers in F32.

    `left_out` are instructions of this processor that it does not use, because of `fault`.
    """

    engine: Engine
    cosine: float
    left_out: tuple[str, ...] = ()
    fault: str = ""

    @property
    def binary(self) -> Path:
        return Path(self.engine.argv[0])


async def compile_engine(source: Path, folder: Path, order: Order, steps: Steps) -> Compiled:
    """Compile `source` in `folder`. Raises EngineBuildError if no engine that computes right comes of it."""
    try:
        engine, cosine = await _attempt(source, folder / "build", order, steps)
    except Miscompiled as error:
        amx = tuple(name for name in order.instructions if name.startswith("amx"))
        if not amx or order.cuda:  # if the GPU computes, AMX is not the cause
            raise
        try:
            engine, cosine = await _attempt(source, folder / "build-without-amx", order, _without_amx(steps))
        except EngineBuildError as second:
            raise EngineBuildError(f"{error}; compiled again without AMX: {second}") from second
        return Compiled(engine=engine, cosine=cosine, left_out=amx, fault=str(error))
    return Compiled(engine=engine, cosine=cosine)


def nvcc(path: str) -> str | None:
    """CUDA's compiler, which its installer does not put on PATH."""
    return shutil.which("nvcc", path=os.pathsep.join((path, "/usr/local/cuda/bin")))


def configuration(compiler: str | None) -> tuple[str, ...]:
    """cmake's definitions; `compiler` is CUDA's, or None to build for the CPU alone."""
    given = {
        "CMAKE_BUILD_TYPE": "Release",
        "BUILD_SHARED_LIBS": "OFF",  # one file, which can be moved
        "LLAMA_BUILD_TESTS": "OFF",
        "LLAMA_BUILD_EXAMPLES": "OFF",
        "LLAMA_BUILD_UI": "OFF",
        "LLAMA_USE_PREBUILT_UI": "OFF",  # else cmake downloads one
        "LLAMA_OPENSSL": "OFF",  # it listens on a UNIX socket only, and downloads nothing
        **({"GGML_CUDA": "ON", "CMAKE_CUDA_COMPILER": compiler} if compiler else {}),
    }
    return tuple(f"-D{name}={value}" for name, value in given.items())


def _without_amx(steps: Steps) -> Steps:
    """cmake takes compiler flags from the environment; these override `-march=native`."""
    given = {name: f"{steps.env.get(name, '')} {NO_AMX}".strip() for name in ("CFLAGS", "CXXFLAGS")}
    return replace(steps, env={**steps.env, **given}, suffix=" without AMX")


async def _attempt(source: Path, build: Path, order: Order, steps: Steps) -> tuple[Engine, float]:
    """An engine, and its least cosine. Raises Miscompiled, or another EngineBuildError."""
    configure = ("-S", str(source), "-B", str(build), "-G", "Ninja")
    compiler = nvcc(os.environ.get("PATH", os.defpath)) if order.cuda else None
    await steps.run("configuring", "cmake", *configure, *configuration(compiler))
    jobs = str(usable_cores())  # ninja's default counts cores that we may not use
    await steps.run("compiling", "cmake", "--build", str(build), "--target", "llama-server", "--parallel", jobs)
    engine = await _probe(build / "bin" / "llama-server")
    steps.report(Progress(step="checking vectors"))
    return engine, await check_engine(engine, build / "check")


async def _probe(binary: Path) -> Engine:
    try:
        return await probe((str(binary),), Origin.BUILT, argv.environment(os.environ))
    except EngineError as error:
        if error.returncode in SIGILL_CODES:
            raise Miscompiled("the built engine dies of SIGILL on --version") from error
        raise EngineBuildError(f"the built engine is unusable: {error}") from error
