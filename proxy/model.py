"""One served model: a backend, its line, and its tokenizer; opens when the backend is up and proves to be right."""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from proxy.backend import Backend
from proxy.config import Family
from proxy.embedding import Ids, Matrix, Provenance
from proxy.errors import BackendError, BackendLoading, BackendUnavailable, BadVector, invalid
from proxy.prepare import parts
from proxy.provenance import UNKNOWN, digest_of, space_of
from proxy.scheduler import Lane, Line
from proxy.tokenizer import PINNED_TEXTS, Tokenizer, UnsupportedTokenizer, load

log = logging.getLogger(__name__)

POLL_S = 0.2
PROOF_TIMEOUT_S = 120.0  # one short text, on the slowest host that is of any use
LONGEST_TOKEN = 1024  # bytes; longer than any in a vocabulary that we have seen
PART = 1_000_000  # characters tokenised at a time: about 100 MB while that lasts
LARGE_TEXT = 20_000  # characters from which tokenising is worth a thread: about 5 ms of the loop


class Tokenize(Protocol):
    async def __call__(self, texts: Sequence[str]) -> list[Ids]: ...


class ServedModel:
    """Answers 503 until `serve` has seen the backend up, its tokens equal to ours and its vectors of the right size."""

    def __init__(self, backend: Backend, family: Family, *, max_queued_items: int, call_timeout_s: float) -> None:
        self.backend = backend
        self.provenance = Provenance(digest=UNKNOWN, quantization=UNKNOWN, engine=UNKNOWN, space=UNKNOWN)
        self._family = family
        settings = backend.settings
        line = Line(slots=settings.slots, batch_tokens=settings.batch_tokens, max_items=max_queued_items)
        self.lane = Lane(backend, line, dimensions=family.dimensions, call_timeout_s=call_timeout_s)
        self._tokenize: Tokenize | None = None
        self._tokenizer: Tokenizer | None = None
        self._closed: BackendUnavailable = BackendLoading(f"backend {backend.name} is not up yet", retry_after_s=2)

    @property
    def longest_token(self) -> int:
        """The most bytes that one token stands for."""
        return self._tokenizer.longest if self._tokenizer else LONGEST_TOKEN

    async def tokenize(self, texts: Sequence[str]) -> list[Ids]:
        """The ids of each text exactly as the model gets them. Raises BackendUnavailable while it is not open."""
        if self._tokenize is None:
            raise self._closed
        return await self._tokenize(texts)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids of the model's own vocabulary. Raises KeyError with the first id that it does not have."""
        if self._tokenizer is None:
            raise invalid(
                "input", "is token ids, which need the proxy's own tokenizer: set model_file", kind="unsupported"
            )
        for token in ids:
            if not 0 <= token < self._tokenizer.size:
                raise KeyError(token)
        return self._tokenizer.decode(ids)

    async def embed(self, inputs: Sequence[Ids]) -> Matrix:
        """The raw vectors of token-id inputs; see Lane.embed."""
        return await self.lane.embed(inputs)

    async def check(self) -> None:
        """Return if it would serve a request now; raise BackendError with the reason if not."""
        await self.backend.check()
        if self._tokenize is None:
            raise self._closed

    async def serve(self) -> None:
        """Open when the backend proves to be right, work the line until it is doubtful, prove again, and so on."""
        while True:
            self._tokenize = await self._opened()
            doubt = await self.lane.serve()
            if isinstance(doubt, BackendUnavailable):
                self._close(doubt)

    def _close(self, reason: BackendError) -> None:
        """Refuse at once, with the reason, until the backend proves to be right again."""
        if reason.message != self._closed.message:
            log.warning("%s", reason.message)
        self._closed = BackendUnavailable(reason.message, retry_after_s=reason.retry_after_s or 30)
        if isinstance(reason, BackendLoading):
            self._closed = reason
        self._tokenize = None
        self.lane.dismiss(self._closed)

    async def _opened(self) -> Tokenize:
        while True:
            try:
                async with asyncio.timeout(PROOF_TIMEOUT_S):
                    await self.backend.check()
                    tokenize = await self._exact_tokenizer()
                    await self._prove(tokenize)
                    self.provenance = await self._provenance()
                    return tokenize
            except BackendError as error:
                self._close(error)
            except TimeoutError:
                self._close(BackendUnavailable(f"backend {self.backend.name} hangs", retry_after_s=10))
            await asyncio.sleep(POLL_S)

    async def _prove(self, tokenize: Tokenize) -> None:
        vectors = await self.backend.embed(await tokenize(["Query: trillama"]))
        if vectors.shape != (1, self._family.dimensions):
            message = f"backend {self.backend.name} gives {vectors.shape[1]} dimensions, the family has"
            raise BadVector(f"{message} {self._family.dimensions}: wrong model file?")

    async def _provenance(self) -> Provenance:
        path, properties = self.backend.settings.model_file, await self.backend.properties()
        digest = await asyncio.to_thread(digest_of, path) if path else UNKNOWN
        return Provenance(
            digest=digest,
            quantization=properties.get("model_ftype", UNKNOWN),
            engine=f"llama.cpp {properties.get('build_info', UNKNOWN)}",
            space=UNKNOWN if digest == UNKNOWN else space_of(digest, self._family, self.backend.name),
        )

    async def _exact_tokenizer(self) -> Tokenize:
        """Our own tokenizer where it agrees with the engine on every pinned text, else the engine's."""
        path = self.backend.settings.model_file
        tokenizer = await asyncio.to_thread(_loaded, path) if path else None
        if tokenizer is None:
            return self._ask_engine
        for text, ids in zip(PINNED_TEXTS, tokenizer.encode(PINNED_TEXTS), strict=True):
            if ids != (await self.backend.tokenize(text)).tolist():
                log.warning("%s: our tokens differ from the engine's for %r: asking the engine", path, text)
                return self._ask_engine
        self._tokenizer = tokenizer
        return _Local(tokenizer)

    async def _ask_engine(self, texts: Sequence[str]) -> list[Ids]:
        return [await self.backend.tokenize(text) for text in texts]


class _Local:
    """The proxy's own tokenizer. Much text goes to a thread, a part at a time and one request at a time.

    So the loop never waits for it, memory stays bounded, and a request that was cancelled ends with its part.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._large = asyncio.Lock()

    async def __call__(self, texts: Sequence[str]) -> list[Ids]:
        if sum(map(len, texts)) < LARGE_TEXT:
            return self._encode(texts)
        async with self._large:
            return [ids for part in parts(texts, PART) for ids in await asyncio.to_thread(self._encode, part)]

    def _encode(self, texts: Sequence[str]) -> list[Ids]:
        return [np.array(ids, dtype=np.int32) for ids in self._tokenizer.encode(texts)]


def _loaded(path: Path) -> Tokenizer | None:
    try:
        return load(path)
    except UnsupportedTokenizer as error:
        log.warning("%s: %s: asking the engine for every token count", path, error)
        return None
