"""What becomes of an answer: vectors go to who waits, what went wrong goes back in line, the guilty get their error."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from proxy import metrics
from proxy.embedding import Matrix
from proxy.errors import BackendError, BackendLost, BackendUnavailable, BadVector, PoisonedInput, ProxyError
from proxy.line import Line
from proxy.poison import Quarantine
from proxy.work import Text

log = logging.getLogger(__name__)


class Embedder(Protocol):
    """What a lane asks of its backend: one call of texts, each its ids as JSON, and the vectors in the answer."""

    @property
    def name(self) -> str: ...

    async def send(self, texts: Sequence[bytes]) -> bytes: ...

    def read(self, answer: bytes, count: int) -> Matrix: ...


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for these texts, and after how long; no texts: there was nothing to send.

    `fillers` more were sent behind them.
    """

    texts: Sequence[Text] = ()
    content: bytes = b""
    fillers: int = 0
    seconds: float = 0.0
    error: BackendError | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """Settles the answers of one backend, whose vectors have that many dimensions; None: a text may have any number."""

    backend: Embedder
    line: Line
    quarantine: Quarantine
    dimensions: int | None

    def settle(self, answer: Answer) -> BackendError | None:
        """Deliver the vectors; what went wrong goes back in line or fails. Returns why the backend is doubtful."""
        if not answer.texts:
            return None
        if answer.error:
            return self._went_wrong(answer.texts, answer.error)
        try:
            vectors = self.backend.read(answer.content, len(answer.texts) + answer.fillers)[: len(answer.texts)]
        except BackendError as error:
            return self._went_wrong(answer.texts, error)
        if self.dimensions is not None and vectors.shape[1] != self.dimensions:
            wrong = f"the backend gave {vectors.shape[1]} dimensions, the family has {self.dimensions}"
            for text in answer.texts:
                self._fail(text, lambda _: BadVector(wrong))
            return BadVector(wrong)
        return self._deliver(answer.texts, vectors)

    def _deliver(self, texts: Sequence[Text], vectors: Matrix) -> BackendError | None:
        finite = list(np.all(np.isfinite(vectors), axis=1))
        for text, vector, good in zip(texts, vectors, finite, strict=True):
            if good:
                self.line.forget(text)
                text.deliver(vector)
        if all(finite):
            return None
        self._suspect([text for text, good in zip(texts, finite, strict=True) if not good])
        return BadVector(f"backend {self.backend.name} gave a vector that is not finite", retry_after_s=5)

    def _went_wrong(self, texts: Sequence[Text], error: BackendError) -> BackendError | None:
        """A call that was refused is taken apart; one that was not taken goes again; one that was lost is suspect."""
        if isinstance(error, BackendLost):
            self._suspect(texts)
        elif isinstance(error, BackendUnavailable):
            self.line.put_back([texts])
        elif len(texts) > 1:
            middle = len(texts) // 2
            self.line.put_back([texts[:middle], texts[middle:]])
            return None
        else:
            self._fail(texts[0], lambda _: type(error)(error.message))
            return None
        return error

    def _suspect(self, texts: Sequence[Text]) -> None:
        """Try each alone; one that had been tried alone is guilty.

        Not by bisection: each call with the guilty text may cost a restart of the engine, a call of one text is cheap.
        """
        for text in texts:
            text.strikes += 1
            if text.strikes == 1:
                self.line.put_back([[text]])
                continue
            digest = self.quarantine.add(text.ids, asyncio.get_running_loop().time())
            log.warning(
                "backend %s: text %s of %d tokens is poison: quarantined", self.backend.name, digest, text.tokens
            )
            metrics.QUARANTINED.labels(self.backend.name).inc()
            self._fail(text, PoisonedInput)

    def _fail(self, text: Text, error: Callable[[int], ProxyError]) -> None:
        self.line.forget(text)
        for job, index in text.waiters:
            job.fail_input(index, error(index))
