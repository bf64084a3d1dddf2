"""One run of one llama-server: it starts, is verified by the golden check, serves, and ends."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import NoReturn, Protocol

import psutil

from launcher.engine import argv as command
from launcher.engine.argv import ServerSpec
from launcher.engine.cpu_fallback import find_fallback
from launcher.engine.discovery import Engine
from launcher.errors import ChildError, ChildExited, StartError, Unresponsive, WrongAnswer
from launcher.processes.child import ending, running
from launcher.processes.child_log import ChildLog
from launcher.settings.config import SupervisionSettings
from launcher.supervision import probes
from launcher.supervision.golden_check import GoldenCheck
from launcher.supervision.start_progress import StartProgress

_POLL_S = 0.05
_END_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """What one backend runs and how it is supervised. Equal specs mean that nothing has to be restarted.

    The fields that do not compare may change while it runs. `memory` is what it is planned to take, in bytes by device;
    `on_gpu` says that it must compute on a GPU.
    """

    engine: Engine
    placement: ServerSpec
    policy: SupervisionSettings = field(compare=False)
    golden: GoldenCheck = field(compare=False)
    on_demand: bool = field(default=False, compare=False)
    on_gpu: bool = False
    memory: Mapping[str, int] = field(default_factory=dict, compare=False)


class Observer(Protocol):
    """Hears how a run proceeds."""

    def starting(self, pid: int) -> None: ...

    def loaded(self, part: float) -> None: ...

    def ready(self) -> None: ...


async def run_server(current: Callable[[], RunSpec], log: ChildLog, observer: Observer) -> NoReturn:
    """Run one process from start to end; always ends by raising a ChildError, or by being cancelled.

    A run that was never ready raises StartError. `current` returns the spec: an equal one during the run, but its
    policy may change.
    """
    spec = current()
    async with started(spec.engine, spec.placement, spec.policy, log, observer) as child:
        if spec.on_gpu and (fallback := find_fallback(log.tail)):
            raise StartError(f"{spec.placement.name}: {fallback}")
        try:
            await spec.golden.check_vectors()
            if spec.on_gpu:
                await spec.golden.check_speed()
        except WrongAnswer as error:
            with suppress(TimeoutError):  # a connection breaks a moment before the end of its process shows
                async with asyncio.timeout(_END_S):
                    raise await child.ended(StartError, "while starting") from error
            raise StartError(f"{spec.placement.name}: {error}") from error
        observer.ready()
        await _watched(current, child)


@asynccontextmanager
async def started(
    engine: Engine, placement: ServerSpec, policy: SupervisionSettings, log: ChildLog, observer: Observer
) -> AsyncIterator["Child"]:
    """A llama-server that has loaded its model, running for the length of the block. Raises StartError."""
    placement.socket.unlink(missing_ok=True)  # a stale one makes the start fail (trap T7)
    argv = command.argv(engine, placement)
    env = {**command.environment(engine.env), **command.media_environment(placement)}
    async with (
        log.pipe() as output,
        running(argv, env=env, grace_s=policy.grace_s, output=output) as process,
    ):
        observer.starting(process.pid)
        child = Child(placement, log, process)
        await child.until_up(policy.stall_s, observer)
        yield child


async def _watched(current: Callable[[], RunSpec], child: "Child") -> NoReturn:
    """Watch it until it ends or goes wrong."""
    placement, checked = current().placement, time.monotonic()

    async def probe() -> bool:
        nonlocal checked
        if not await probes.backend_up(placement.socket):
            return False
        spec = current()
        if time.monotonic() - checked > spec.policy.canary_interval_s and await spec.golden.idle():
            await spec.golden.check_vectors()
            checked = time.monotonic()
        return True

    code = await probes.watch(child.process, probe, lambda: current().policy, up=True)
    if code is None:
        misses, pid = current().policy.max_misses, child.process.pid
        raise Unresponsive(f"{placement.name}: llama-server (pid {pid}) missed {misses} health checks")
    raise await child.ended(ChildExited, "while serving")


@dataclass(frozen=True, slots=True)
class Child:
    """A llama-server's process and its log."""

    placement: ServerSpec
    log: ChildLog
    process: asyncio.subprocess.Process

    async def until_up(self, stall_s: float, observer: Observer) -> None:
        """Wait for /health 200 while the model loads. Raises StartError if it is stuck."""
        progress = StartProgress(stall_s=stall_s, since_s=time.monotonic())
        while not await probes.backend_up(self.placement.socket):
            if self.process.returncode is not None:
                raise await self.ended(StartError, "while starting")
            loaded, used_s = self._usage()
            if progress.advance(time.monotonic(), loaded, used_s):
                observer.loaded(loaded)
            if progress.stuck(time.monotonic(), used_s):
                raise StartError(self._sentence(f"llama-server made no progress for {stall_s:g} s"))
            await asyncio.sleep(_POLL_S)

    async def ended(self, kind: type[ChildError], when: str) -> ChildError:
        """Wait for its end; the error that says how and why it ended."""
        code = await self.process.wait()
        await self.log.complete()
        return kind(self._sentence(f"llama-server {ending(code)} {when}"), returncode=code)

    async def broke_off(self, when: str) -> ChildError:
        """The error for a broken connection: mostly the process has ended, which shows a moment later."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_END_S):
                return await self.ended(ChildExited, when)
        return ChildExited(self._sentence(f"llama-server broke off {when}"))

    def _usage(self) -> tuple[float, float]:
        """The part of the model file that the process has in memory, in steps of 1 %, and the CPU seconds it used."""
        try:
            process = psutil.Process(self.process.pid)
            resident, times = process.memory_info().rss, process.cpu_times()
        except psutil.Error:
            return 0.0, 0.0
        return min(0.99, round(resident / self.placement.model.stat().st_size, 2)), times.user + times.system

    def _sentence(self, what: str) -> str:
        line = self.log.telling or "it wrote nothing"
        return f"{self.placement.name}: {what}: {line} (the whole log: {self.log.path})"
