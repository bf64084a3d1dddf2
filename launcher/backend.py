"""One llama-server's life: STARTING → READY; it ends by being cancelled or by raising."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from launcher import command, health
from launcher.child import last_lines, running
from launcher.command import Placement
from launcher.config import EngineSettings
from launcher.engine import Engine
from launcher.errors import ChildExited, StartError

POLL_S = 0.05


class State(StrEnum):
    STARTING = "starting"
    READY = "ready"


Report = Callable[[str, State, int], None]  # name, state, pid; called once for each change of state


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """What is needed to run one llama-server. Its output goes to `log`, from the beginning at each start."""

    engine: Engine
    placement: Placement
    settings: EngineSettings
    log: Path
    report: Report

    async def serve(self) -> None:
        """Keep it running until cancelled. Raises StartError if it does not become ready, ChildExited if it ends."""
        name = self.placement.name
        self.log.write_bytes(b"")
        self.placement.socket.unlink(missing_ok=True)  # a stale one is a start failure (trap T7)
        async with running(
            command.argv(self.engine, self.placement),
            env=command.environment(self.engine.env),
            grace_s=self.settings.grace_s,
            output=self.log,
        ) as process:
            self.report(name, State.STARTING, process.pid)
            await self._until_ready(process)
            self.report(name, State.READY, process.pid)
            raise self._ended(ChildExited, await process.wait())

    async def _until_ready(self, process: asyncio.subprocess.Process) -> None:
        try:
            async with asyncio.timeout(self.settings.ready_timeout_s):
                while not await health.backend_up(self.placement.socket):
                    if process.returncode is not None:
                        raise self._ended(StartError, process.returncode)
                    await asyncio.sleep(POLL_S)
        except TimeoutError as error:
            raise StartError(
                f"{self.placement.name} was not ready after {self.settings.ready_timeout_s:g} s: "
                f"raise [engine] ready_timeout_s, or see {self.log}\n{last_lines(self.log)}"
            ) from error

    def _ended(self, kind: type[StartError | ChildExited], code: int) -> StartError | ChildExited:
        when = "while starting" if kind is StartError else "while serving"
        how = f"exited with {code}" if code >= 0 else f"was killed by signal {-code}"
        return kind(
            f"{self.placement.name}: llama-server {how} {when}; its last lines ({self.log}):\n{last_lines(self.log)}"
        )
