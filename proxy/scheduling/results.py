"""Handles a batch's result: delivers the vectors, requeues what failed, refuses the text that ends the engine."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from proxy import metrics
from proxy.errors import BackendError, BackendLost, BackendUnavailable, BadVector, ProxyError
from proxy.faults import PoisonedInput
from proxy.scheduling.batch_queue import BatchQueue
from proxy.scheduling.entries import QueuedText
from proxy.scheduling.quarantine import Suspects, Verdict, text_digest
from proxy.types import Matrix

log = logging.getLogger(__name__)

GIVEN_UP_S = 60  # before a retry of a text that the engine ended with several times, but also without it


class Embedder(Protocol):
    """What a dispatcher needs of its backend: send a batch of texts, each its ids as JSON, and read the vectors.

    `once`: a lost batch is not sent again on another connection.
    """

    @property
    def name(self) -> str: ...

    async def send(self, texts: Sequence[bytes], *, once: bool = False) -> bytes: ...

    def read(self, answer: bytes, count: int) -> Matrix: ...


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What the backend answered for these texts, and after how long; no texts: there was nothing to send.

    `fillers` more texts were sent behind them. With an error, `seconds` is about how long the batch would take.
    """

    texts: Sequence[QueuedText] = ()
    content: bytes = b""
    fillers: int = 0
    seconds: float = 0.0
    error: BackendError | None = None


@dataclass(frozen=True, slots=True)
class ResultHandler:
    """Handles the results of one backend. `dimensions` of its vectors; None: a text may have any number."""

    backend: Embedder
    queue: BatchQueue
    suspects: Suspects
    dimensions: int | None

    def settle(self, result: BatchResult) -> BackendError | None:
        """Deliver the vectors; requeue or fail what has none. Returns the backend's fault, if it has one."""
        if not result.texts:
            return None
        if result.error:
            return self._failed(result, result.error)
        try:
            vectors = self.backend.read(result.content, len(result.texts) + result.fillers)[: len(result.texts)]
        except BackendError as error:
            return self._failed(result, error)
        if self.dimensions is not None and vectors.shape[1] != self.dimensions:
            wrong = f"the backend gave {vectors.shape[1]} dimensions, the family has {self.dimensions}"
            for text in result.texts:
                self._fail(text, lambda _: BadVector(wrong))
            return BadVector(wrong)
        return self._deliver(result.texts, vectors)

    def _deliver(self, texts: Sequence[QueuedText], vectors: Matrix) -> BackendError | None:
        finite = list(np.all(np.isfinite(vectors), axis=1))
        for text, vector, good in zip(texts, vectors, finite, strict=True):
            if good:
                self.suspects.was_right(text.ids)
                self.queue.finish(text)
                text.deliver(vector)
        if all(finite):
            return None
        now = asyncio.get_running_loop().time()
        for text in (text for text, good in zip(texts, finite, strict=True) if not good):
            self._judge(text, self.suspects.not_finite(text.ids, now), now)
        return BadVector(f"backend {self.backend.name} gave a vector that is not finite", retry_after_s=5)

    def _failed(self, result: BatchResult, error: BackendError) -> BackendError | None:
        """Split a refused batch, retry one that was not accepted, suspect the texts of a lost one."""
        texts = result.texts
        if isinstance(error, BackendLost):
            now = asyncio.get_running_loop().time()
            verdicts = self.suspects.ended_with([text.ids for text in texts], result.seconds, now)
            for text, verdict in zip(texts, verdicts, strict=True):
                self._judge(text, verdict, now)
        elif isinstance(error, BackendUnavailable):
            self.suspects.ended_without()
            self.queue.requeue([texts])
        elif len(texts) > 1:
            middle = len(texts) // 2
            self.queue.requeue([texts[:middle], texts[middle:]])
            return None
        else:
            self._fail(texts[0], lambda _: type(error)(error.message))
            return None
        return error

    def _judge(self, text: QueuedText, verdict: Verdict, now: float) -> None:
        """Retry it alone, not by bisection: each batch with poison may cost a restart, a batch of one text is cheap."""
        name = self.backend.name
        if verdict is Verdict.RETRY:
            text.quiet_s = self.suspects.quiet_before(text.ids, now)
            self.queue.requeue([[text]])
            if text.exclusive:
                self.queue.retry_after(text, now)
        elif verdict is Verdict.POISON:
            digested = text_digest(text.ids).hex()
            log.warning("backend %s: text %s of %d tokens is poison: quarantined", name, digested, text.tokens)
            metrics.QUARANTINED.labels(name).inc()
            self._fail(text, PoisonedInput)
        else:
            message = f"backend {name} ended with this text several times, and without it, too: try again later"
            self._fail(text, lambda _: BackendUnavailable(message, retry_after_s=GIVEN_UP_S))

    def _fail(self, text: QueuedText, error: Callable[[int], ProxyError]) -> None:
        self.queue.finish(text)
        text.fail(error)
