"""One run of one llama-server: from its start, over the canary, to whatever ends it."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NoReturn, Protocol

import psutil

from launcher import command, health
from launcher.canary import Canary
from launcher.child import running
from launcher.command import Placement
from launcher.config import SupervisionSettings
from launcher.engine import Engine
from launcher.errors import ChildExited, StartError, Unresponsive, WrongAnswer
from launcher.logs import ChildLog
from launcher.watch import watch

POLL_S = 0.05
LONGEST_SOCKET = 107  # bytes of a UNIX socket's path, unix(7)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What one backend runs and how it is looked after: as long as it is the same, nothing has to be restarted.

    `memory` is what it is planned to take, in bytes by device.
    """

    engine: Engine
    placement: Placement
    policy: SupervisionSettings
    canary: Canary
    on_demand: bool = False
    memory: Mapping[str, int] = field(default_factory=dict)


class Observer(Protocol):
    """Who is told how a run goes."""

    def starting(self, pid: int) -> None: ...

    def loaded(self, part: float) -> None: ...

    def ready(self) -> None: ...


async def run(spec: Spec, log: ChildLog, observer: Observer) -> NoReturn:
    """Run one process from start to end; always ends by raising a ChildError, or by being cancelled.

    It is StartError for a run that was never ready.
    """
    placement = spec.placement
    placement.socket.unlink(missing_ok=True)  # a stale one is a start failure (trap T7)
    async with (
        log.pipe() as output,
        running(
            command.argv(spec.engine, placement),
            env=command.environment(spec.engine.env),
            grace_s=spec.policy.grace_s,
            output=output,
        ) as process,
    ):
        one = _Run(spec, log, process)
        observer.starting(process.pid)
        await one.until_up(observer)
        await one.prove()
        observer.ready()
        await one.watched()


@dataclass(frozen=True, slots=True)
class _Run:
    spec: Spec
    log: ChildLog
    process: asyncio.subprocess.Process

    async def until_up(self, observer: Observer) -> None:
        """Wait for /health 200 for as long as the model is being loaded: the deadline moves on with the bytes."""
        loaded, progress = 0.0, time.monotonic()
        while not await health.backend_up(self.spec.placement.socket):
            if self.process.returncode is not None:
                raise StartError(await self._ended("while starting"))
            if (now := self._loaded()) > loaded:
                loaded, progress = now, time.monotonic()
                observer.loaded(loaded)
            if time.monotonic() - progress > self.spec.policy.stall_s:
                raise StartError(self._said(f"llama-server made no progress for {self.spec.policy.stall_s:g} s"))
            await asyncio.sleep(POLL_S)

    async def prove(self) -> None:
        """Return if it gives the right vectors; it may take as long as it likes, but not die of it."""
        try:
            await self.spec.canary.sing()
        except WrongAnswer as error:
            if self.process.returncode is not None:
                raise StartError(await self._ended("while starting")) from error
            raise StartError(f"{self.spec.placement.name}: {error}") from error

    async def watched(self) -> NoReturn:
        """Look at it until it ends or goes wrong."""
        placement, policy, checked = self.spec.placement, self.spec.policy, time.monotonic()

        async def probe() -> bool:
            nonlocal checked
            if not await health.backend_up(placement.socket):
                return False
            if time.monotonic() - checked > policy.canary_interval_s and await self.spec.canary.idle():
                await self.spec.canary.sing()
                checked = time.monotonic()
            return True

        code = await watch(self.process, probe, policy)
        if code is None:
            misses, pid = policy.max_misses, self.process.pid
            raise Unresponsive(f"{placement.name}: llama-server (pid {pid}) missed {misses} health checks")
        raise ChildExited(await self._ended("while serving"))

    def _loaded(self) -> float:
        """The part of the model's file that the process has in memory, in steps of a hundredth."""
        try:
            resident = psutil.Process(self.process.pid).memory_info().rss
        except psutil.Error:
            return 0.0
        return min(0.99, round(resident / self.spec.placement.model.stat().st_size, 2))

    async def _ended(self, when: str) -> str:
        await self.log.complete()
        code = await self.process.wait()
        how = f"exited with {code}" if code >= 0 else f"was killed by signal {-code}"
        return self._said(f"llama-server {how} {when}")

    def _said(self, what: str) -> str:
        line = self.log.telling or "it said nothing"
        return f"{self.spec.placement.name}: {what}: {line} (all of it: {self.log.path})"
