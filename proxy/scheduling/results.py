"""Handles a batch's result: delivers the vectors, requeues what failed, refuses the text that ends the engine."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from proxy import metrics
from proxy.errors import BackendError, BackendLost, BackendUnavailable, BadVector, PoisonedInput, ProxyError
from proxy.scheduling.batch_queue import BatchQueue
from proxy.scheduling.entries import QueuedText
from proxy.scheduling.quarantine import Suspects, Verdict, digest
from proxy.types import Matrix

log = logging.getLogger(__name__)

GIVEN_UP_S = 60  # until a text is worth another try that the engine ended with several times, and without it, too


class Embedder(Protocol):
    """What a lane asks of its backend: one call of texts, each its ids as JSON, and the vectors in the answer.

    `once`: what was lost is not sent again on another connection.
    """

    @property
    def name(self) -> str: ...

    async def send(self, texts: Sequence[bytes], *, once: bool = False) -> bytes: ...

    def read(self, answer: bytes, count: int) -> Matrix: ...


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What came back for these texts, and after how long; no texts: there was nothing to send.

    `fillers` more were sent behind them. With an error `seconds` is about how long they take.
    """

    texts: Sequence[QueuedText] = ()
    content: bytes = b""
    fillers: int = 0
    seconds: float = 0.0
    error: BackendError | None = None


@dataclass(frozen=True, slots=True)
class ResultHandler:
    """Settles the answers of one backend, whose vectors have that many dimensions; None: a text may have any number."""

    backend: Embedder
    line: BatchQueue
    suspects: Suspects
    dimensions: int | None

    def settle(self, answer: BatchResult) -> BackendError | None:
        """Deliver the vectors; what went wrong goes back in line or fails. Returns why the backend is doubtful."""
        if not answer.texts:
            return None
        if answer.error:
            return self._went_wrong(answer, answer.error)
        try:
            vectors = self.backend.read(answer.content, len(answer.texts) + answer.fillers)[: len(answer.texts)]
        except BackendError as error:
            return self._went_wrong(answer, error)
        if self.dimensions is not None and vectors.shape[1] != self.dimensions:
            wrong = f"the backend gave {vectors.shape[1]} dimensions, the family has {self.dimensions}"
            for text in answer.texts:
                self._fail(text, lambda _: BadVector(wrong))
            return BadVector(wrong)
        return self._deliver(answer.texts, vectors)

    def _deliver(self, texts: Sequence[QueuedText], vectors: Matrix) -> BackendError | None:
        finite = list(np.all(np.isfinite(vectors), axis=1))
        for text, vector, good in zip(texts, vectors, finite, strict=True):
            if good:
                self.suspects.was_right(text.ids)
                self.line.forget(text)
                text.deliver(vector)
        if all(finite):
            return None
        now = asyncio.get_running_loop().time()
        for text in (text for text, good in zip(texts, finite, strict=True) if not good):
            self._judge(text, self.suspects.not_finite(text.ids, now), now)
        return BadVector(f"backend {self.backend.name} gave a vector that is not finite", retry_after_s=5)

    def _went_wrong(self, answer: BatchResult, error: BackendError) -> BackendError | None:
        """A refused call is taken apart, one that was not taken is made again, the texts of a lost one are suspect."""
        texts = answer.texts
        if isinstance(error, BackendLost):
            now = asyncio.get_running_loop().time()
            verdicts = self.suspects.ended_with([text.ids for text in texts], answer.seconds, now)
            for text, verdict in zip(texts, verdicts, strict=True):
                self._judge(text, verdict, now)
        elif isinstance(error, BackendUnavailable):
            self.suspects.ended_without()
            self.line.requeue([texts])
        elif len(texts) > 1:
            middle = len(texts) // 2
            self.line.requeue([texts[:middle], texts[middle:]])
            return None
        else:
            self._fail(texts[0], lambda _: type(error)(error.message))
            return None
        return error

    def _judge(self, text: QueuedText, verdict: Verdict, now: float) -> None:
        """Try it alone, not by bisection: each call with poison may cost a restart, a call of one text is cheap."""
        name = self.backend.name
        if verdict is Verdict.AGAIN:
            text.quiet_s = self.suspects.quiet_before(text.ids, now)
            self.line.requeue([[text]])
            if text.alone:
                self.line.hold_back(text, now)
        elif verdict is Verdict.POISON:
            digested = digest(text.ids).hex()
            log.warning("backend %s: text %s of %d tokens is poison: quarantined", name, digested, text.tokens)
            metrics.QUARANTINED.labels(name).inc()
            self._fail(text, PoisonedInput)
        else:
            message = f"backend {name} ended with this text several times, and without it, too: try again later"
            self._fail(text, lambda _: BackendUnavailable(message, retry_after_s=GIVEN_UP_S))

    def _fail(self, text: QueuedText, error: Callable[[int], ProxyError]) -> None:
        self.line.forget(text)
        for job, index in text.waiters:
            job.fail_input(index, error(index))
