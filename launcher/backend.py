"""One llama-server's life: STARTING → READY → BACKOFF → STARTING …, or FAILED. Its state has one owner: `serve`."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

import psutil

from launcher import command, health
from launcher.canary import Canary
from launcher.child import last_lines, running
from launcher.command import Placement
from launcher.config import SupervisionSettings
from launcher.engine import Engine
from launcher.errors import ChildError, ChildExited, StartError, Unresponsive, WrongAnswer
from launcher.watch import watch

POLL_S = 0.05


class State(StrEnum):
    STARTING = "starting"
    READY = "ready"
    BACKOFF = "backoff"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What is so now. `loaded` is the part of the model that is in memory, 0 to 1; `cause` is of the last trouble."""

    name: str
    state: State = State.STOPPED
    pid: int | None = None
    loaded: float = 0.0
    restarts: int = 0
    cause: str = ""


Report = Callable[[Status], None]  # called at each change of state, and while a model is loading


def restart_delay(policy: SupervisionSettings, failures: int, *, was_ready: bool) -> float | None:
    """Seconds to wait after the n-th failure in a row; None means give up.

    A run that was ready is tried again soon: what it needs is there. One that never was waits long, and longer.
    """
    if failures > policy.max_failures:
        return None
    first = policy.quick_delay_s if was_ready else policy.first_delay_s
    return min(first * 2.0 ** min(failures - 1, 32), policy.max_delay_s)


@dataclass(slots=True, kw_only=True)
class Backend:
    """What is needed to keep one llama-server serving. Its output goes to `log`, from the beginning at each start."""

    engine: Engine
    placement: Placement
    policy: SupervisionSettings
    canary: Canary
    log: Path
    report: Report
    status: Status = field(init=False)

    def __post_init__(self) -> None:
        self.status = Status(name=self.placement.name)

    async def serve(self) -> None:
        """Keep it running until cancelled. Returns only when it has failed too often in a row; it is FAILED then."""
        failures = 0
        try:
            while True:
                started = time.monotonic()
                try:
                    await self._run_once()
                except ChildError as error:
                    was_ready = not isinstance(error, StartError)
                    lasted = time.monotonic() - started
                    failures = 1 if was_ready and lasted > self.policy.stable_s else failures + 1
                    delay = restart_delay(self.policy, failures, was_ready=was_ready)
                    if delay is None:
                        return self._change(State.FAILED, pid=None, cause=str(error))
                    self._change(State.BACKOFF, pid=None, cause=f"{error}\nnext try in {delay:g} s")
                    await asyncio.sleep(delay)
                    self.status = replace(self.status, restarts=self.status.restarts + 1)
        finally:
            if self.status.state is not State.FAILED:
                self._change(State.STOPPED, pid=None)

    async def _run_once(self) -> None:
        """Run one process from start to end; always ends by raising a ChildError."""
        self.log.write_bytes(b"")
        self.placement.socket.unlink(missing_ok=True)  # a stale one is a start failure (trap T7)
        async with running(
            command.argv(self.engine, self.placement),
            env=command.environment(self.engine.env),
            grace_s=self.policy.grace_s,
            output=self.log,
        ) as process:
            self._change(State.STARTING, pid=process.pid, loaded=0.0)
            await self._until_up(process)
            try:
                await self.canary.sing()
            except WrongAnswer as error:
                raise StartError(f"{self.placement.name}: {error}") from error
            self._change(State.READY, pid=process.pid, loaded=1.0)
            await self._watch(process)

    async def _until_up(self, process: asyncio.subprocess.Process) -> None:
        """Wait for /health 200 for as long as the model is being loaded: the deadline moves on with the bytes."""
        progress = time.monotonic()
        while not await health.backend_up(self.placement.socket):
            if process.returncode is not None:
                raise self._ended(StartError, process.returncode)
            if (loaded := self._loaded(process.pid)) > self.status.loaded:
                progress = time.monotonic()
                self.status = replace(self.status, loaded=loaded)
                self.report(self.status)
            if time.monotonic() - progress > self.policy.stall_s:
                raise StartError(
                    f"{self.placement.name}: llama-server made no progress for {self.policy.stall_s:g} s; "
                    f"its last lines ({self.log}):\n{last_lines(self.log)}"
                )
            await asyncio.sleep(POLL_S)

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        """Look at it until it ends or goes wrong; always ends by raising."""
        checked = time.monotonic()

        async def probe() -> bool:
            nonlocal checked
            if not await health.backend_up(self.placement.socket):
                return False
            if time.monotonic() - checked > self.policy.canary_interval_s and await self.canary.idle():
                await self.canary.sing()
                checked = time.monotonic()
            return True

        code = await watch(process, probe, self.policy)
        if code is None:
            name, misses = self.placement.name, self.policy.max_misses
            raise Unresponsive(f"{name}: llama-server (pid {process.pid}) missed {misses} health checks")
        raise self._ended(ChildExited, code)

    def _loaded(self, pid: int) -> float:
        """The part of the model's file that the process has in memory, in steps of a hundredth."""
        try:
            resident = psutil.Process(pid).memory_info().rss
        except psutil.Error:
            return 0.0
        return min(0.99, round(resident / self.placement.model.stat().st_size, 2))

    def _ended(self, kind: type[StartError | ChildExited], code: int) -> StartError | ChildExited:
        when = "while starting" if kind is StartError else "while serving"
        how = f"exited with {code}" if code >= 0 else f"was killed by signal {-code}"
        name, lines = self.placement.name, last_lines(self.log)
        return kind(f"{name}: llama-server {how} {when}; its last lines ({self.log}):\n{lines}")

    def _change(self, state: State, **facts: object) -> None:
        self.status = replace(self.status, state=state, **facts)  # type: ignore[arg-type] # names of Status's fields
        self.report(self.status)
