"""Admission of requests to one model: counts them from arrival to answer, and rejects those the queue cannot take."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from proxy.scheduling.dispatcher import Dispatcher


class Admission:
    """`incoming_tokens`, estimated, are of requests that are not in the queue yet; `requests` counts the admitted."""

    def __init__(self, dispatcher: Dispatcher, max_tokens: int) -> None:
        self.incoming_tokens = 0
        self.requests = 0
        self._dispatcher = dispatcher
        self._max_tokens = max_tokens
        self._active = 0
        self._used_at = time.monotonic()

    @property
    def waiting_tokens(self) -> int:
        """Tokens in the queue, and an estimate of those that will be added to it."""
        return self._dispatcher.queue.tokens + self.incoming_tokens

    @property
    def idle_s(self) -> float:
        """Seconds since the last request left; 0 while there is one."""
        return 0.0 if self._active else time.monotonic() - self._used_at

    @contextmanager
    def admitted(self, tokens: int) -> Iterator[None]:
        """Count a request of about so many tokens until it is in the queue. Raises Overloaded before any work."""
        queued = self.waiting_tokens
        if queued and queued + tokens > self._max_tokens:
            raise self._dispatcher.overloaded(self.incoming_tokens)
        self.requests += 1
        self.incoming_tokens += tokens
        try:
            with self.active():
                yield
        finally:
            self.incoming_tokens -= tokens

    @contextmanager
    def active(self) -> Iterator[None]:
        """During the block the model is in use."""
        self._active += 1
        try:
            yield
        finally:
            self._active -= 1
            self._used_at = time.monotonic()
