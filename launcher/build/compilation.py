"""From the patched source to an engine that computes right: compiled, asked what it is, and checked.

What is miscompiled is compiled again without AMX, where the processor has it: the newest instructions are those that
compilers, hypervisors and llama.cpp itself get wrong. Without AMX the engine is slower, and right.
"""

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from launcher.build.check import check
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
    """An engine that may be installed: its vectors agree to `cosine` with those of the same numbers in F32.

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
    """Make an engine of `source` in `folder`. Raises EngineBuildError if there is none that computes right."""
    try:
        engine, cosine = await _attempt(source, folder / "build", order, steps)
    except Miscompiled as error:
        amx = tuple(name for name in order.instructions if name.startswith("amx"))
        if not amx or order.cuda:  # where the GPU computes, AMX is not to blame
            raise
        try:
            engine, cosine = await _attempt(source, folder / "build-without-amx", order, _without_amx(steps))
        except EngineBuildError as second:
            raise EngineBuildError(f"{error}; compiled again without AMX, {second}") from second
        return Compiled(engine=engine, cosine=cosine, left_out=amx, fault=str(error))
    return Compiled(engine=engine, cosine=cosine)


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


def _without_amx(steps: Steps) -> Steps:
    """cmake takes the compilers' flags from the environment; they count whatever `-march=native` says."""
    given = {name: f"{steps.env.get(name, '')} {NO_AMX}".strip() for name in ("CFLAGS", "CXXFLAGS")}
    return replace(steps, env={**steps.env, **given}, suffix=" without AMX")


async def _attempt(source: Path, build: Path, order: Order, steps: Steps) -> tuple[Engine, float]:
    """An engine, and the least cosine that its check found. Raises Miscompiled, or another EngineBuildError."""
    configure = ("-S", str(source), "-B", str(build), "-G", "Ninja")
    compiler = nvcc(os.environ.get("PATH", os.defpath)) if order.cuda else None
    await steps.run("configuring", "cmake", *configure, *configuration(compiler))
    jobs = str(usable_cores())  # ninja's own choice counts cores that we may not use
    await steps.run("compiling", "cmake", "--build", str(build), "--target", "llama-server", "--parallel", jobs)
    engine = await _asked(build / "bin" / "llama-server")
    steps.report(Progress(step="checking vectors"))
    return engine, await check(engine, build / "check")


async def _asked(binary: Path) -> Engine:
    try:
        return await probe((str(binary),), Origin.BUILT, argv.environment(os.environ))
    except EngineError as error:
        if error.returncode in SIGILL_CODES:
            raise Miscompiled("what was built dies of SIGILL when it is asked for its version") from error
        raise EngineBuildError(f"what was built is of no use: {error}") from error
