"""The readiness state of one model, and how long requests wait for it."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from proxy.contract.admin import State
from proxy.errors import BackendError, BackendLoading, BackendUnavailable, Draining, ProxyError

log = logging.getLogger(__name__)

WAIT_FOR = (State.PAUSED, State.LOADING)


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitLimits:
    """How many `tokens` may wait, and how long a batch, the start of a model and its recovery may take."""

    tokens: int
    batch_s: float
    start_s: float
    recovery_s: float


class Readiness:
    """The state of one model. READY and DOWN answer at once; in the other states requests wait.

    `progress`, set by whoever loads the model, is part of the error for requests that time out. `queued` gives the
    number of waiting tokens.
    """

    def __init__(self, state: State, reason: BackendError, limits: WaitLimits, queued: Callable[[], int]) -> None:
        self.state = state
        self.reason = reason
        self.limits = limits
        self.progress = ""
        self._queued = queued
        self._stopping = False
        self._settled = asyncio.Event()  # set while no request has to wait: READY or DOWN
        self._timer: asyncio.TimerHandle | None = None
        if state is State.DOWN:
            self._settled.set()

    @property
    def shown(self) -> State:
        """The state as it is reported: a model that has not been up yet is loading."""
        starting = self.state is State.DOWN and isinstance(self.reason, BackendLoading)
        return State.LOADING if starting else self.state

    @property
    def serves(self) -> bool:
        """Whether a request is served now, or once the model is started for it."""
        return self.state in (State.READY, State.PAUSED)

    def enter(self, state: State, reason: BackendError, remedy: str = "") -> None:
        """Change to a state that is not READY, for that reason; the remedy is for the log alone."""
        if self._stopping:
            return
        if reason.message != self.reason.message:
            log.warning("%s", f"{reason.message}; {remedy}" if remedy else reason.message)
        self.state, self.reason = state, reason
        (self._settled.set if state is State.DOWN else self._settled.clear)()

    def open(self) -> bool:
        """Become READY, unless the server is stopping."""
        self._cancel()
        if self._stopping:
            return False
        self.state, self.progress = State.READY, ""
        self._settled.set()
        return True

    def stop(self) -> None:
        """Reject requests from now on: the server is stopping."""
        self._cancel()
        self._stopping, self.state = True, State.DOWN
        self._settled.set()

    def unless_open_in(self, seconds: float, act: Callable[[], None]) -> None:
        """Call `act` after that time unless the model is READY by then; replaces an earlier call of this."""
        self._cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, act)

    async def until_open(self) -> None:
        """Wait until the model is READY, for as long as its state allows. Raises BackendUnavailable, or Draining."""
        limits = self.limits
        try:
            async with asyncio.timeout(
                limits.start_s if self.state in WAIT_FOR else limits.start_s + limits.recovery_s
            ):
                while self.state is not State.READY:
                    if self.state is State.DOWN:
                        raise self.refusal()
                    await self._settled.wait()
        except TimeoutError:
            raise self.refusal() from None

    def refusal(self) -> ProxyError:
        """Why it does not serve now, as a new error for each request."""
        if self._stopping:
            return Draining("the server is stopping", retry_after_s=5)
        message = f"{self.reason.message}: {self.progress}" if self.progress else self.reason.message
        kind = BackendLoading if isinstance(self.reason, BackendLoading) else BackendUnavailable
        error = kind(message, retry_after_s=self.reason.retry_after_s or 30)
        error.queue_tokens = self._queued()
        return error

    def _cancel(self) -> None:
        if self._timer:
            self._timer.cancel()
