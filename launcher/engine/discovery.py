"""Finds the llama-server to use: the configured one, the one built here, the one on PATH, or the embedded one."""

import asyncio
import errno
import os
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from launcher.engine import argv as command
from launcher.engine import build_record
from launcher.engine.libgomp import openmp_environment
from launcher.errors import EngineError
from launcher.processes.child import SIGILL_CODES, ending
from launcher.settings.folders import cache_dir, noexec

PROBE_TIMEOUT_S = 60.0  # a CUDA engine on a cold disk takes seconds to print its version
ELSEWHERE = "set TRILLAMA_CACHE to a folder on another disk, and build it there"
_FIX = "run `trillama engine build`, or set llama_server under [engine] to a newer one"


class Origin(StrEnum):
    CONFIGURED = "configured"
    BUILT = "built"
    PATH = "path"
    EMBEDDED = "embedded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """A llama-server that knows every flag we need. `env` is the complete environment to run it in."""

    argv: tuple[str, ...]
    version: str
    flags: frozenset[str]
    origin: Origin
    env: Mapping[str, str]

    @property
    def name(self) -> str:
        """The engine in a sentence."""
        return _name(self.argv, self.origin)


async def find_engine(configured: Path | None) -> Engine:
    """The first that exists of: configured, built by `trillama engine build`, on PATH, embedded.

    Only that one is tried: if it cannot be used, EngineError says what it lacks and what to do, so that nobody gets
    another engine than the one they installed.
    """
    env = command.environment(os.environ)
    if configured:
        if not configured.is_file():
            raise EngineError(f"llama_server = {configured} under [engine]: there is no such file")
        return await probe((str(configured.absolute()),), Origin.CONFIGURED, env)
    if built_path().is_file():
        return await probe((str(built_path()),), Origin.BUILT, env)
    if on_path := shutil.which("llama-server"):
        return await probe((on_path,), Origin.PATH, env)
    argv = (sys.executable, "-P", "-m", "launcher.engine.embedded")  # -P: never a user's folder named `launcher`
    return await probe(argv, Origin.EMBEDDED, openmp_environment(env, cache_dir() / "lib"))


def built_path() -> Path:
    """Where `trillama engine build` puts the binary."""
    return (cache_dir() / "engine" / "llama-server").absolute()


async def probe(argv: tuple[str, ...], origin: Origin, env: Mapping[str, str]) -> Engine:
    """Ask an engine for version and flags. Raises EngineError if it fails, lacks a flag or is for another processor."""
    name = _name(argv, origin)
    if foreign := build_record.why_foreign(Path(argv[0])):
        raise EngineError(foreign)
    version = parse_version(await ask(argv, "--version", env, name))
    if version is None:
        raise EngineError(f"{name} does not print a version as llama-server does: is it one? {_capital(_FIX)}")
    flags = parse_flags(await ask(argv, "--help", env, name))
    if missing := sorted(command.REQUIRED_FLAGS - flags):
        raise EngineError(f"{name} (version {version}) lacks {', '.join(missing)}: it is too old; {_FIX}")
    return Engine(argv=argv, version=version, flags=flags, origin=origin, env=env)


def parse_version(text: str) -> str | None:
    """The version in the output of `--version`, e.g. `6789 (abc1234)`."""
    found = re.search(r"^version: *(\S.*?) *$", text, re.MULTILINE)
    return found[1] if found else None


def parse_flags(text: str) -> frozenset[str]:
    """Every spelling of every flag in the output of `--help`, without flags that a description only mentions."""
    lines = re.findall(r"^ {0,4}(-\S.*)$", text, re.MULTILINE)  # descriptions are indented further
    spellings = [re.split(r"(?<=[^,\s])\s{2,}", line, maxsplit=1)[0] for line in lines]  # and at least two spaces away
    return frozenset(flag for line in spellings for flag in re.findall(r"(?<!\S)--?[a-zA-Z][\w-]*", line))


async def ask(argv: tuple[str, ...], flag: str, env: Mapping[str, str], name: str) -> str:
    """An engine's output on both streams: versions differ in which they use. Raises EngineError, also if it hangs."""
    try:
        code, text = await _output((*argv, flag), env)
    except TimeoutError as error:  # also an OSError, so it comes first
        raise EngineError(f"{name} {flag} gave no answer in {PROBE_TIMEOUT_S:g} s; {_FIX}") from error
    except OSError as error:
        forbidden = error.errno == errno.EACCES and noexec(Path(argv[0]).parent)
        fix = f"no program may run on its disk (noexec): {ELSEWHERE}" if forbidden else _FIX
        raise EngineError(f"{name} cannot be run: {error.strerror}; {fix}") from error
    if code in SIGILL_CODES:
        raise EngineError(f"{name} {flag} {ending(code)}", returncode=code)
    if code != 0:
        last = "\n".join(text.strip().splitlines()[-5:]) or "nothing"
        raise EngineError(f"{name} {flag} {ending(code)}; {_FIX}. Its output:\n{last}", returncode=code)
    return text


async def _output(argv: tuple[str, ...], env: Mapping[str, str]) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *argv,
        env=env,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            output, _ = await process.communicate()
        return await process.wait(), output.decode(errors="replace")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _name(argv: tuple[str, ...], origin: Origin) -> str:
    return "the embedded llama.cpp" if origin is Origin.EMBEDDED else argv[0]


def _capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]
