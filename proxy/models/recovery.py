"""The recovery loop of one backend: verify it, serve its queue until it has a fault, verify it again."""

import asyncio

from proxy import metrics
from proxy.contract.admin import State
from proxy.contract.family import Family
from proxy.errors import BackendError, BackendLoading, BackendLost, BackendUnavailable
from proxy.llama.client import LlamaClient
from proxy.models.readiness import Readiness
from proxy.models.verification import VerifiedBackend, verify_backend
from proxy.scheduling.dispatcher import Dispatcher

_POLL_S = 0.2


class RecoveryLoop:
    """`verified` is what the last verification found; None before the first one."""

    def __init__(self, backend: LlamaClient, family: Family, readiness: Readiness, dispatcher: Dispatcher) -> None:
        self.verified: VerifiedBackend | None = None
        self._backend = backend
        self._family = family
        self._readiness = readiness
        self._dispatcher = dispatcher
        self._resumed, self._at_rest = asyncio.Event(), asyncio.Event()
        self._verifying: asyncio.Timeout | None = None
        if not backend.settings.on_demand:
            self._resumed.set()

    async def run(self) -> None:
        while True:
            if not self._resumed.is_set():
                self._at_rest.set()
                await self._resumed.wait()
                self._at_rest.clear()
            elif verified := await self._verify():
                self._open(verified)
                fault = await self._dispatcher.serve()
                if fault and self._resumed.is_set():
                    self._recover(fault)

    async def pause(self) -> None:
        """Send no more batches; returns when none is in flight. Requests wait for `start_s` at most."""
        if self._resumed.is_set():
            self._resumed.clear()
            reason = BackendLoading(f"backend {self._backend.name} is not loaded", retry_after_s=5)
            self._readiness.enter(State.PAUSED, reason)
            start_s = self._readiness.limits.start_s
            self._readiness.unless_open_in(start_s, lambda: self._dispatcher.fail_waiting(self._readiness.refusal))
            self._dispatcher.pause()
            if self._verifying:
                self._verifying.reschedule(0)  # one that hangs would take minutes
        await self._at_rest.wait()

    def resume(self) -> None:
        """Verify it again, and continue; if it is not verified within `start_s`, it is down."""
        if not self._resumed.is_set():
            self._resumed.set()
            reason = BackendLoading(f"backend {self._backend.name} is loading", retry_after_s=2)
            self._readiness.enter(State.LOADING, reason)
            self._readiness.unless_open_in(self._readiness.limits.start_s, self._give_up)

    async def _verify(self) -> VerifiedBackend | None:
        """Try until it is verified; None if it is paused meanwhile."""
        while self._resumed.is_set():
            try:
                async with asyncio.timeout(None) as self._verifying:
                    verified = await verify_backend(self._backend, self._family)
            except TimeoutError:
                return None  # it was paused meanwhile
            except BackendError as error:
                if isinstance(error, BackendLost):  # it ends without any text of a request
                    self._dispatcher.suspects.ended_without()
                if self._resumed.is_set():
                    self._readiness.enter(self._readiness.state, error, self._remedy(error))
                await asyncio.sleep(_POLL_S)
            else:
                return verified if self._resumed.is_set() else None
            finally:
                self._verifying = None
        return None

    def _remedy(self, error: BackendError) -> str:
        down = isinstance(error, BackendUnavailable) and not isinstance(error, BackendLoading)
        return self._backend.remedy if down else ""

    def _open(self, verified: VerifiedBackend) -> None:
        if self.verified is None or self.verified.provenance != verified.provenance:
            self._dispatcher.suspects.clear()
        self.verified = verified
        self._dispatcher.throughput.guess = verified.tokens_per_s
        if self._readiness.open():
            self._dispatcher.open()

    def _recover(self, fault: BackendError) -> None:
        """Keep requests waiting while the backend is verified again, for at most `recovery_s`."""
        metrics.RECOVERIES.labels(self._backend.name).inc()
        self._readiness.enter(State.RECOVERING, fault)
        self._readiness.unless_open_in(self._readiness.limits.recovery_s, self._give_up)

    def _give_up(self) -> None:
        self._readiness.enter(State.DOWN, self._readiness.reason)
        self._dispatcher.close(self._readiness.refusal)
