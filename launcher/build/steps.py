"""Runs the commands of a build one after the other, reports progress, and stops them if the build is cancelled."""

import asyncio
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from launcher.errors import EngineBuildError
from launcher.processes.child import last_lines, running

_GRACE_S = 2.0
REPORT_INTERVAL_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The current `step`, for people to read; `done` of `total` files are compiled, if known."""

    step: str
    done: int = 0
    total: int | None = None


ReportProgress = Callable[[Progress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """Runs commands in the environment `env`; `log` holds the output of the latest. `suffix` is added to step names."""

    env: Mapping[str, str]
    log: Path
    report: ReportProgress
    suffix: str = ""

    async def run(self, step: str, *argv: str) -> None:
        """Run one command to its end. Raises EngineBuildError with its last lines if it fails."""
        step += self.suffix
        self.log.write_bytes(b"")
        self.report(Progress(step=step))
        async with running(argv, env=self.env, grace_s=_GRACE_S, output=self.log) as process:
            while process.returncode is None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(REPORT_INTERVAL_S):
                        await process.wait()
                self.report(parse_progress(step, last_lines(self.log, 1)))
        if process.returncode != 0:
            raise EngineBuildError(f"{step} failed with {process.returncode}:\n{last_lines(self.log, 20)}")


def parse_progress(step: str, line: str) -> Progress:
    """The progress in ninja's last line, e.g. `[17/206] Building CXX object …`."""
    found = re.match(r"\[(\d+)/(\d+)\]", line)
    return Progress(step=step, done=int(found[1]), total=int(found[2])) if found else Progress(step=step)
