"""The states of one llama-server: STARTING → READY → BACKOFF → STARTING …, or FAILED. `serve` owns them.

A backend on demand begins SLEEPING, and sleeps again when it is told to.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import NoReturn

from launcher.engine import devices
from launcher.errors import ChildError, EngineError, StartError
from launcher.processes.child import SIGILL_CODES
from launcher.processes.child_log import ChildLog
from launcher.settings.config import SupervisionSettings
from launcher.supervision.server_run import RunSpec, run_server
from launcher.supervision.states import BackendState, ReportStatus, Status


def restart_delay(policy: SupervisionSettings, failures: int, *, was_ready: bool) -> float | None:
    """Seconds to wait after the n-th failure in a row; None means give up.

    After a run that was ready the first delay is short: what it needs is there. One that never was ready waits longer.
    Each further failure doubles the delay.
    """
    if failures > policy.max_failures:
        return None
    first = policy.quick_delay_s if was_ready else policy.first_delay_s
    return min(first * 2.0 ** min(failures - 1, 32), policy.max_delay_s)


class Backend:
    """Keeps one llama-server serving. `restart`, `change`, `wake` and `sleep` may be called at any time, by anyone."""

    def __init__(self, spec: RunSpec, *, log: ChildLog, report: ReportStatus) -> None:
        self.spec = spec
        self.log = log
        self.illegal_instruction = False  # whether its last start died of SIGILL, as each on this processor would
        self.status = Status(name=spec.placement.name, since=time.time())
        self._report = report
        self._failures = 0
        self._ran = False
        self._changed = time.monotonic()
        self._awake = asyncio.Event()
        self._settled = asyncio.Event()
        self._scope = _Scope()
        if not spec.on_demand:
            self._awake.set()

    async def serve(self) -> None:
        """Keep it running, but for the times when it sleeps, until cancelled."""
        try:
            while True:
                if not self._awake.is_set():
                    self._change(BackendState.SLEEPING, pid=None, loaded=0.0)
                    await self._awake.wait()
                await self._scope.run(self._live)
        finally:
            self._change(BackendState.STOPPED, pid=None)

    def restart(self) -> None:
        """End this run, or this wait for the next try, and start again immediately."""
        if self._scope.end():
            self._failures = 0
            self._settled.clear()

    def change(self, spec: RunSpec) -> None:
        """Run this spec from now on; the present run is ended only if the specs differ."""
        changed, self.spec = spec != self.spec, spec
        if not spec.on_demand and not self._awake.is_set():
            self._settled.clear()
            self._awake.set()
        if changed:
            self.restart()

    @property
    def state_s(self) -> float:
        """Seconds since the state changed, independent of the wall clock."""
        return time.monotonic() - self._changed

    async def settled(self) -> None:
        """Wait until a start that was requested has succeeded or failed."""
        await self._settled.wait()

    def wake(self) -> None:
        self._awake.set()

    def sleep(self) -> None:
        """End the run until `wake`; no effect on a backend that is no longer on demand."""
        if self.spec.on_demand:
            self._awake.clear()
            self.restart()

    def starting(self, pid: int) -> None:
        self._change(BackendState.STARTING, pid=pid, loaded=0.0)

    def loaded(self, part: float) -> None:
        self.status = replace(self.status, loaded=part)
        self._report(self.status)

    def ready(self) -> None:
        self._change(BackendState.READY, loaded=1.0)

    async def _live(self) -> None:
        """Run after run until told to end. After too many failures, or SIGILL, it is FAILED, and tried again rarely."""
        while True:
            started = time.monotonic()
            try:
                await self._run()
            except ChildError as error:
                delay = self._delay_after(error, lasted_s=time.monotonic() - started)
                if delay is None:
                    self._change(BackendState.FAILED, pid=None, cause=str(error))
                else:
                    self._change(BackendState.BACKOFF, pid=None, cause=f"{error}; next try in {delay:g} s")
                await asyncio.sleep(self.spec.policy.failed_retry_s if delay is None else delay)
                self.status = replace(self.status, restarts=self.status.restarts + 1)

    async def _run(self) -> NoReturn:
        """One run. Raises ChildError, also for errors of the system or the engine: they may pass, and others serve."""
        try:
            if self.spec.on_gpu and (self._ran or self.spec.on_demand):
                self._change(BackendState.STARTING, pid=None, loaded=0.0)  # it counts as resident from here on
                await devices.wait_until_free(self.spec.engine, self.spec.memory, self.spec.policy.memory_wait_s)
            self._ran = True
            await run_server(lambda: self.spec, self.log, self)
        except (OSError, EngineError) as error:
            raise StartError(f"{self.spec.placement.name}: llama-server cannot be run: {error}") from error

    def _delay_after(self, error: ChildError, *, lasted_s: float) -> float | None:
        was_ready = not isinstance(error, StartError)
        self.illegal_instruction = error.returncode in SIGILL_CODES and not was_ready
        self._failures = 1 if was_ready and lasted_s > self.spec.policy.stable_s else self._failures + 1
        if self.illegal_instruction:
            return None
        return restart_delay(self.spec.policy, self._failures, was_ready=was_ready)

    def _change(self, state: BackendState, **facts: object) -> None:
        self.status = replace(self.status, state=state, since=time.time(), **facts)  # type: ignore[arg-type] # its fields
        self._changed = time.monotonic()
        self._report(self.status)
        if state is not BackendState.STARTING:
            self._settled.set()


class _Scope:
    """Work that another task can end: it is cancelled and cleans up, and the task that ran it continues.

    One piece of work at a time.
    """

    def __init__(self) -> None:
        self._timeout: asyncio.Timeout | None = None

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Return when the work is done or was ended by `end`. Raises what the work raises."""
        try:
            async with asyncio.timeout(None) as timeout:
                self._timeout = timeout
                await work()
        except TimeoutError:
            if not timeout.expired():
                raise
        finally:
            self._timeout = None

    def end(self) -> bool:
        """End the work; False if there was none."""
        if self._timeout is None or self._timeout.expired():
            return False
        self._timeout.reschedule(0)
        return True
