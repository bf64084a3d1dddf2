"""One served model: a backend, its line, and its tokenizer; opens when the backend is up and proves to be right."""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from proxy.backend import Backend
from proxy.config import Family
from proxy.embedding import Matrix, Provenance
from proxy.errors import BackendError, BackendLoading, BackendUnavailable, BadVector, invalid
from proxy.provenance import UNKNOWN, digest_of, space_of
from proxy.scheduler import Lane, Line
from proxy.tokenizer import PINNED_TEXTS, Tokenizer, UnsupportedTokenizer, load

log = logging.getLogger(__name__)

POLL_S = 0.1
LARGE_TEXT = 20_000  # characters from which tokenising is worth a thread: about 5 ms of the loop


class Tokenize(Protocol):
    async def __call__(self, texts: Sequence[str]) -> list[list[int]]: ...


class ServedModel:
    """Answers 503 until `serve` has seen the backend up, its tokens equal to ours and its vectors of the right size."""

    def __init__(self, backend: Backend, family: Family, *, max_queued_items: int) -> None:
        self.backend = backend
        self.provenance = Provenance(digest=UNKNOWN, quantization=UNKNOWN, engine=UNKNOWN, space=UNKNOWN)
        self._family = family
        settings = backend.settings
        self.lane = Lane(
            backend, Line(slots=settings.slots, batch_tokens=settings.batch_tokens, max_items=max_queued_items)
        )
        self._tokenize: Tokenize | None = None
        self._tokenizer: Tokenizer | None = None
        self._closed: BackendUnavailable = BackendLoading(f"backend {backend.name} is not up yet", retry_after_s=2)

    async def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
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

    async def embed(self, inputs: Sequence[Sequence[int]]) -> Matrix:
        """The raw vectors of token-id inputs; see Lane.embed."""
        return await self.lane.embed(inputs)

    async def check(self) -> None:
        """Return if it would serve a request now; raise BackendError with the reason if not."""
        await self.backend.check()
        if self._tokenize is None:
            raise self._closed

    async def serve(self) -> None:
        """Open once the backend proves to be right, then work the line until cancelled."""
        self._tokenize = await self._opened()
        await self.lane.serve()

    async def _opened(self) -> Tokenize:
        while True:
            try:
                await self.backend.check()
                tokenize = await self._exact_tokenizer()
                await self._prove(tokenize)
                self.provenance = await self._provenance()
            except BackendUnavailable as error:
                self._closed = error
            except BackendError as error:
                self._closed = BackendUnavailable(error.message, retry_after_s=30)
                log.warning("%s", error.message)
            else:
                return tokenize
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
            space=space_of(digest, self._family, self.backend.name) if path else UNKNOWN,
        )

    async def _exact_tokenizer(self) -> Tokenize:
        """Our own tokenizer where it agrees with the engine on every pinned text, else the engine's."""
        path = self.backend.settings.model_file
        tokenizer = await asyncio.to_thread(_loaded, path) if path else None
        if tokenizer is None:
            return self._ask_engine
        for text, ids in zip(PINNED_TEXTS, tokenizer.encode(PINNED_TEXTS), strict=True):
            if ids != await self.backend.tokenize(text):
                log.warning("%s: our tokens differ from the engine's for %r: asking the engine", path, text)
                return self._ask_engine
        self._tokenizer = tokenizer
        return _Local(tokenizer)

    async def _ask_engine(self, texts: Sequence[str]) -> list[list[int]]:
        return [await self.backend.tokenize(text) for text in texts]


class _Local:
    """The proxy's own tokenizer; long texts are worked on in a thread so that the loop never waits for them."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    async def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        if sum(map(len, texts)) < LARGE_TEXT:
            return self._tokenizer.encode(texts)
        return await asyncio.to_thread(self._tokenizer.encode, texts)


def _loaded(path: Path) -> Tokenizer | None:
    try:
        return load(path)
    except UnsupportedTokenizer as error:
        log.warning("%s: %s: asking the engine for every token count", path, error)
        return None
