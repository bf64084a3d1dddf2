"""Fetches one package with `pip download`: by the user's own pip settings, bounded in time and size."""

import asyncio
import importlib.util
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from launcher.errors import PackageUnavailable
from launcher.processes.child import last_lines, running

_GRACE_S = 2.0
_POLL_S = 0.2
DOWNLOAD_STALL_S = 10.0  # without a network nothing arrives; names alone may take a resolver for minutes
# A wheel only, as an sdist would be run. pip's own waits are short, because another start asks again.
_OPTIONS = (
    *("--no-deps", "--only-binary", ":all:", "--disable-pip-version-check", "--no-input"),
    *("--progress-bar", "off", "--retries", "1", "--timeout", "5"),
)

_Report = Callable[[int], None]  # bytes so far


async def download_wheel(
    requirement: str, folder: Path, *, most_bytes: int, report: _Report, stall_s: float = DOWNLOAD_STALL_S
) -> Path:
    """The package's wheel, in `folder`, which is this download's own and is removed by the caller.

    Raises PackageUnavailable with pip's reason, or if nothing arrives for `stall_s`, or more than `most_bytes`.
    """
    for name in ("tmp", "wheel"):
        (folder / name).mkdir(parents=True)
    bounds = _Bounds(folder, most_bytes=most_bytes, report=report, stall_s=stall_s)
    python = sys.executable
    if importlib.util.find_spec("pip") is None:  # as in what uv installs
        await _run((python, "-P", "-m", "venv", str(folder / "tmp" / "venv")), requirement, bounds)
        python = str(folder / "tmp" / "venv" / "bin" / "python")
    pip = (python, "-P", "-m", "pip", "download", *_OPTIONS, "--dest", str(folder / "wheel"), requirement)
    await _run(pip, requirement, bounds)
    wheel = next((folder / "wheel").glob("*.whl"), None)
    if wheel is None:
        raise PackageUnavailable(f"{requirement} is not a wheel")
    return wheel


class _Bounds:
    """Watches what a download writes, because pip shows its progress to terminals only."""

    def __init__(self, folder: Path, *, most_bytes: int, report: _Report, stall_s: float) -> None:
        self.folder = folder
        self._most_bytes = most_bytes
        self._report = report
        self._stall_s = stall_s
        self._bytes = 0
        self._since = time.monotonic()

    def exceeded(self) -> str | None:
        """Which bound the download exceeds, as an error message; None if none."""
        sizes = list(self._sizes())
        largest, total = max(sizes, default=0), sum(sizes)  # pip writes the package twice or three times
        if total > self._bytes:
            self._bytes, self._since = total, time.monotonic()
            self._report(largest)
        if largest > self._most_bytes:
            return f"it is larger than {self._most_bytes} bytes"
        if time.monotonic() - self._since > self._stall_s:
            return f"nothing arrived for {self._stall_s:.0f} s"
        return None

    def _sizes(self) -> Iterator[int]:
        """The sizes of the downloaded files, without one that pip is moving at this moment."""
        for folder, _, names in os.walk(self.folder):
            for name in names if Path(folder) != self.folder else ():
                with suppress(OSError):
                    yield Path(folder, name).stat().st_size


async def _run(argv: Sequence[str], requirement: str, bounds: _Bounds) -> None:
    """Run one command to its end. Raises PackageUnavailable."""
    log = bounds.folder / "log"
    env = {**os.environ, "TMPDIR": str(bounds.folder / "tmp"), "PIP_NO_COLOR": "1"}
    async with running(argv, env=env, grace_s=_GRACE_S, output=log) as process:
        while process.returncode is None:
            with suppress(TimeoutError):
                async with asyncio.timeout(_POLL_S):
                    await process.wait()
            if reason := bounds.exceeded():
                raise PackageUnavailable(f"{requirement}: {reason}")
    if process.returncode != 0:
        raise PackageUnavailable(f"{requirement}: {_reason(log) or f'{argv[3]} ended with {process.returncode}'}")


def _reason(log: Path) -> str:
    """Why the command failed. Without a network, pip's last line only says that there is no such package."""
    system = re.findall(r"\[Errno -?\d+\] ([^')\n]+)", last_lines(log, 20))
    return system[-1] if system else last_lines(log, 1).removeprefix("ERROR: ")
