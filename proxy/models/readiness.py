"""Whether a model serves, and who waits until it does."""

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
    """How long and how much may wait: `start_s` for a held model, `recovery_s` for one that failed."""

    tokens: int
    batch_s: float
    start_s: float
    recovery_s: float


class Readiness:
    """The state of one model. `progress` is for whoever loads it to set: those who do not get in are told.

    `queued` tells how many tokens wait.
    """

    def __init__(self, state: State, reason: BackendError, waiting: WaitLimits, queued: Callable[[], int]) -> None:
        self.state = state
        self.reason = reason
        self.progress = ""
        self._waiting = waiting
        self._queued = queued
        self._stopping = False
        self._settled = asyncio.Event()  # set while nobody has to wait: it is ready, or refuses at once
        self._timer: asyncio.TimerHandle | None = None
        if state is State.DOWN:
            self._settled.set()

    @property
    def shown(self) -> State:
        """The state as others see it: one that has not been up yet is loading."""
        starting = self.state is State.DOWN and isinstance(self.reason, BackendLoading)
        return State.LOADING if starting else self.state

    def enter(self, state: State, reason: BackendError) -> None:
        """Not ready, and why."""
        if self._stopping:
            return
        if reason.message != self.reason.message:
            log.warning("%s", reason.message)
        self.state, self.reason = state, reason
        (self._settled.set if state is State.DOWN else self._settled.clear)()

    def open(self) -> bool:
        """Ready, unless the server is stopping."""
        self._cancel()
        if self._stopping:
            return False
        self.state, self.progress = State.READY, ""
        self._settled.set()
        return True

    def stop(self) -> None:
        """Refuse from now on."""
        self._cancel()
        self._stopping, self.state = True, State.DOWN
        self._settled.set()

    def unless_open_in(self, seconds: float, act: Callable[[], None]) -> None:
        """Do that then, instead of what was planned before, unless it has opened."""
        self._cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, act)

    async def until_open(self) -> None:
        """Wait for as long as the state is worth it. Raises BackendUnavailable, or Draining."""
        waiting = self._waiting
        try:
            async with asyncio.timeout(
                waiting.start_s if self.state in WAIT_FOR else waiting.start_s + waiting.recovery_s
            ):
                while self.state is not State.READY:
                    if self.state is State.DOWN:
                        raise self.refusal()
                    await self._settled.wait()
        except TimeoutError:
            raise self.refusal() from None

    def refusal(self) -> ProxyError:
        """Why it does not serve now, as a new error for each who asks."""
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
