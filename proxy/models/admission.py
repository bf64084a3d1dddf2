"""Admission of requests to one model: counts them from arrival to answer, and rejects those the queue cannot take."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from proxy.contract.images import AROUND_IMAGE, IMAGE_TOKENS, PDF_PAGES
from proxy.scheduling.dispatcher import Dispatcher
from proxy.types import ImageSource, Input

CHARACTERS_PER_TOKEN = 4  # about, in prose; tokens are counted exactly later
_DECAY = 0.99  # weight that earlier counts keep at each request, so that about a hundred count


class Admission:
    """`incoming_tokens`, estimated, are of requests that are not in the queue yet; `requests` counts the admitted.

    Estimates are corrected by recent counts: the number of characters in a token depends on the language.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        self.incoming_tokens = 0
        self.requests = 0
        self._dispatcher = dispatcher
        self._active = 0
        self._used_at = time.monotonic()
        self._estimated = self._counted = 0.0

    @property
    def waiting_tokens(self) -> int:
        """Tokens in the queue, and an estimate of those that will be added to it."""
        return self._dispatcher.queue.tokens + self.incoming_tokens

    @property
    def idle_s(self) -> float:
        """Seconds since the last request left; 0 while there is one."""
        return 0.0 if self._active else time.monotonic() - self._used_at

    @contextmanager
    def admitted(self, estimated: int, images: int = 0) -> Iterator[None]:
        """Count a request until it is in the queue: so many tokens of texts, and images of any size.

        Raises Overloaded before any work if too much waits already.
        """
        tokens = round(estimated * self._counted / self._estimated) if self._estimated else estimated
        tokens += images * self._image_cost
        queued = self.waiting_tokens
        if queued and queued + tokens > self._dispatcher.queue.max_tokens:
            raise self._dispatcher.overloaded(tokens, self.incoming_tokens)
        self.requests += 1
        self.incoming_tokens += tokens
        try:
            with self.active():
                yield
        finally:
            self.incoming_tokens -= tokens

    @contextmanager
    def expecting(self, images: int) -> Iterator[Callable[[], None]]:
        """Count images of an admitted request until each is in the queue: then the result is called."""
        each = self._image_cost
        left = images * each
        self.incoming_tokens += left

        def arrived() -> None:
            nonlocal left
            left -= each
            self.incoming_tokens -= each

        try:
            yield arrived
        finally:
            self.incoming_tokens -= left

    @property
    def _image_cost(self) -> int:
        return self._dispatcher.cost_of_image(IMAGE_TOKENS)

    @contextmanager
    def active(self) -> Iterator[None]:
        """During the block the model is in use."""
        self._active += 1
        try:
            yield
        finally:
            self._active -= 1
            self._used_at = time.monotonic()

    def counted(self, estimated: int, tokens: int) -> None:
        """Texts with that estimate have so many tokens."""
        self._estimated = _DECAY * self._estimated + estimated
        self._counted = _DECAY * self._counted + tokens


def estimate(inputs: Iterable[Input]) -> int:
    """About how many tokens these are, at next to no cost: enough to reject a flood before any work.

    An image has as many as the largest until it is here, and a PDF is the longest.
    """
    return sum(map(_estimate, inputs))


def _estimate(one: Input) -> int:
    if isinstance(one, ImageSource):
        return (IMAGE_TOKENS + AROUND_IMAGE) * (PDF_PAGES if one.pdf else 1)
    return (len(one) // CHARACTERS_PER_TOKEN if isinstance(one, str) else len(one)) + 1
