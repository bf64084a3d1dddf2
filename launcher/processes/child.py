"""One child process, whose lifetime is a `with` block."""

import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import IO

PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LEASH = (
    f"import ctypes, os, sys; ctypes.CDLL(None).prctl({PR_SET_PDEATHSIG}, {int(signal.SIGKILL)}); "
    "os.execvp(sys.argv[1], sys.argv[1:])"
)
SIGILL_CODES = (-signal.SIGILL, 128 + signal.SIGILL)  # of the process itself, and of a shell that ran it
_CRASHES = {
    code: number.name
    for number in (signal.SIGILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE)
    for code in (-number, 128 + number)
}


@asynccontextmanager
async def running(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    grace_s: float,
    output: Path | int | None = None,
    pass_fds: Sequence[int] = (),
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run `argv` in its own process group; leaving the block ends the whole group.

    stdout and stderr go to `output`: a file, a descriptor (closed here once the child has it), or where ours go. The
    child dies with us, even if we are killed by SIGKILL (on Linux only). Ending is bounded: SIGTERM, wait `grace_s`,
    SIGTERM again, wait 1 s, SIGKILL.
    """
    with _opened(output) as stream:
        process = await asyncio.create_subprocess_exec(
            *argv,
            env=env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
            pass_fds=pass_fds,
            preexec_fn=_die_with_parent(),
        )
    try:
        yield process
    finally:
        await _end(process, grace_s)


@contextmanager
def _opened(output: Path | int | None) -> Iterator[IO[bytes] | int | None]:
    if isinstance(output, Path):
        with output.open("ab") as file:
            yield file
        return
    try:
        yield output
    finally:
        if output is not None:
            os.close(output)


def leashed(argv: Sequence[str]) -> tuple[str, ...]:
    """The command, which the kernel then kills when its parent is gone. On Linux only.

    For a parent that must not run Python code after a fork, as `running` does. `setpriv --pdeathsig` also sets
    capabilities, which the service's sandbox refuses.
    """
    return (sys.executable, "-I", "-S", "-c", _LEASH, *argv)


def last_lines(output: Path, count: int = 5) -> str:
    """The end of a child's output, for an error message; empty if there is none."""
    with suppress(OSError):
        lines = output.read_bytes()[-8192:].decode(errors="replace").splitlines()
        return "\n".join([line for line in lines if line.strip()][-count:])
    return ""


def ending(code: int) -> str:
    """Say how a llama-server with that return code ended: the predicate of a sentence about it."""
    if code in SIGILL_CODES:
        return (
            "was killed by signal 4 (SIGILL: it uses an instruction that this processor does not have; run "
            "`trillama engine build`, which makes one for this processor)"
        )
    return f"exited with {code}" if code >= 0 else f"was killed by signal {-code}"


def crash_of(code: int | None) -> str | None:
    """The signal by which wrong machine code ended a process, such as SIGILL; None if it ended otherwise."""
    return _CRASHES.get(code) if code is not None else None


async def _end(process: asyncio.subprocess.Process, grace_s: float) -> None:
    """Send SIGTERM, send it again (trap T6: a llama-server with queued work ends only then), and at last SIGKILL."""
    try:
        for wait_s in (grace_s, 1.0):
            if process.returncode is None:
                _signal_group(process.pid, signal.SIGTERM)
                _signal_group(process.pid, signal.SIGCONT)  # a stopped process would not see the SIGTERM
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await process.wait()
    finally:
        # Also ends what the child left behind, and runs even if we are cancelled again.
        _signal_group(process.pid, signal.SIGKILL)
        await process.wait()


def _signal_group(pid: int, signum: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, signum)


def _die_with_parent() -> Callable[[], None] | None:
    """A function for the child to call between fork and exec, so that the kernel kills it when this process is gone."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up before the fork: after it no lock may be taken
    parent = os.getpid()

    def ask_kernel() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent died before the kernel was asked
            os._exit(1)

    return ask_kernel
