"""Checks a backend before it may serve: it is up, tokenises as we do, and returns finite vectors of the right size."""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from proxy.contract.family import Family
from proxy.errors import BackendLost, BackendUnavailable, BadVector
from proxy.llama.client import LlamaClient
from proxy.models.provenance import UNKNOWN, digest_of, space_of
from proxy.models.rounding import RoundingCheck
from proxy.tokens.bpe import PINNED_TEXTS, Tokenizer, UnsupportedTokenizer, load_tokenizer
from proxy.tokens.tokenize import LocalTokenizer, Tokenize
from proxy.types import Ids, Provenance

log = logging.getLogger(__name__)

# About eighty tokens: fewer would say little about the speed.
KNOWN_TEXT = "Query: " + "what do llamas, alpacas, vicuñas and guanacos eat in the high Andes in winter? " * 4
_TIMEOUT_S = 120.0  # one short text, on the slowest host that is of any use


@dataclass(frozen=True, slots=True)
class VerifiedBackend:
    """What serves requests of a verified backend. `tokenizer` is None if the engine tokenises every text."""

    tokenize: Tokenize
    tokenizer: Tokenizer | None
    provenance: Provenance
    tokens_per_s: float
    rounding: RoundingCheck = field(default_factory=RoundingCheck)


async def verify_backend(backend: LlamaClient, family: Family) -> VerifiedBackend:
    """Verify the backend. Raises BackendError with what is wrong, or not there yet.

    The error is BackendLost only if the backend was up and ended meanwhile.
    """
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            await _check_up(backend)
            tokenizer = await _own_tokenizer(backend)
            tokenize: Tokenize = LocalTokenizer(tokenizer) if tokenizer else _EngineTokenizer(backend)
            speed = await _check_vector(backend, family, tokenize)
            return VerifiedBackend(tokenize, tokenizer, await _provenance(backend, family), speed)
    except TimeoutError as error:
        raise BackendUnavailable(f"backend {backend.name} hangs", retry_after_s=10) from error


async def _check_up(backend: LlamaClient) -> None:
    try:
        await backend.check()
    except BackendLost as error:
        raise BackendUnavailable(error.message, retry_after_s=error.retry_after_s) from error


async def _check_vector(backend: LlamaClient, family: Family, tokenize: Tokenize) -> float:
    """Compute one vector; return the tokens per second. Raises BadVector if it is wrong."""
    ids = (await tokenize([KNOWN_TEXT]))[0][: backend.settings.batch_tokens]
    started = time.perf_counter()
    vectors = await backend.embed([ids])
    seconds = time.perf_counter() - started
    if vectors.shape != (1, family.dimensions):
        message = f"backend {backend.name} gives {vectors.shape[1]} dimensions, the family has"
        raise BadVector(f"{message} {family.dimensions}: wrong model file?")
    if not np.isfinite(vectors).all():
        raise BadVector(f"backend {backend.name} gives no finite vector for any text: it must be restarted")
    return len(ids) / seconds


async def _provenance(backend: LlamaClient, family: Family) -> Provenance:
    path, properties = backend.settings.model_file, await backend.properties()
    digest = await asyncio.to_thread(digest_of, path) if path else UNKNOWN
    return Provenance(
        digest=digest,
        quantization=properties.get("model_ftype", UNKNOWN),
        engine=f"llama.cpp {properties.get('build_info', UNKNOWN)}",
        space=UNKNOWN if digest == UNKNOWN else space_of(digest, family, backend.name),
        size=await backend.size(),
    )


async def _own_tokenizer(backend: LlamaClient) -> Tokenizer | None:
    """The file's own tokenizer if it agrees with the engine on every pinned text."""
    path = backend.settings.model_file
    tokenizer = await asyncio.to_thread(_loaded, path) if path else None
    if tokenizer is None:
        return None
    for text, ids in zip(PINNED_TEXTS, tokenizer.encode(PINNED_TEXTS), strict=True):
        if ids != (await backend.tokenize(text)).tolist():
            log.warning("%s: our tokens differ from the engine's for %r: the engine tokenises", path, text)
            return None
    return tokenizer


@dataclass(frozen=True, slots=True)
class _EngineTokenizer:
    backend: LlamaClient

    async def __call__(self, texts: Sequence[str]) -> list[Ids]:
        return [await self.backend.tokenize(text) for text in texts]


def _loaded(path: Path) -> Tokenizer | None:
    try:
        return load_tokenizer(path)
    except UnsupportedTokenizer as error:
        log.warning("%s: %s: the engine tokenises every text", path, error)
        return None
