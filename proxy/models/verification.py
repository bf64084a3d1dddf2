"""Checks a backend before it may serve: it is up, tokenises as we do, and returns finite vectors of the right size."""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from proxy.contract.family import Family, Words
from proxy.errors import BackendError, BackendLost, BackendUnavailable, BadVector
from proxy.images.pictures import picture_of
from proxy.llama.client import LlamaClient
from proxy.llama.media import ImagePrompt, image_prompt
from proxy.models.provenance import UNKNOWN, digest_of, engine_name, image_space_of, space_of
from proxy.models.rounding import RoundingCheck
from proxy.tokens.gguf_tokenizer import PINNED_TEXTS, Tokenizer, load_tokenizer
from proxy.tokens.kinds.vocabulary import UnsupportedTokenizer
from proxy.tokens.special import TEXT, SpecialTokens, special_tokens
from proxy.tokens.tokenize import LocalTokenizer, Tokenize
from proxy.types import Ids, Provenance

log = logging.getLogger(__name__)

# About eighty tokens: fewer would say little about the speed.
KNOWN_TEXT = "Query: " + "what do llamas, alpacas, vicuñas and guanacos eat in the high Andes in winter? " * 4
KNOWN_PIXELS = np.full((56, 56, 3), 127, dtype=np.uint8)  # the smallest image
_TIMEOUT_S = 120.0  # one short text, on the slowest host that is of any use


@dataclass(frozen=True, slots=True)
class NoTokenizer:
    """The engine tokenises every text; `reason` says why, or what to set."""

    reason: str


@dataclass(frozen=True, slots=True)
class VerifiedBackend:
    """What serves requests of a verified backend."""

    tokenize: Tokenize
    tokenizer: Tokenizer | NoTokenizer
    provenance: Provenance
    tokens_per_s: float
    special: SpecialTokens
    images: ImagePrompt | None = None
    rounding: RoundingCheck = field(default_factory=RoundingCheck)


async def verify_backend(backend: LlamaClient, family: Family) -> VerifiedBackend:
    """Verify the backend. Raises BackendError with what is wrong, or not there yet.

    The error is BackendLost only if the backend was up and ended meanwhile.
    """
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            await _check_up(backend)
            properties = await backend.properties()
            _check_context(backend, properties)
            tokenizer = await _own_tokenizer(backend, family.tokenizer.words)
            tokenize: Tokenize = (
                _EngineTokenizer(backend) if isinstance(tokenizer, NoTokenizer) else LocalTokenizer(tokenizer)
            )
            special = await _special_tokens(backend, tokenize)
            speed = await _check_vector(backend, family, tokenize)
            provenance = await _provenance(backend, family, properties)
            images = await _images(backend, tokenize)
            return VerifiedBackend(tokenize, tokenizer, provenance, speed, special, images)
    except TimeoutError as error:
        raise BackendUnavailable(f"backend {backend.name} hangs", retry_after_s=10) from error


async def _check_up(backend: LlamaClient) -> None:
    try:
        await backend.check()
    except BackendLost as error:
        raise BackendUnavailable(error.message, retry_after_s=error.retry_after_s) from error


def _check_context(backend: LlamaClient, properties: Mapping[str, str]) -> None:
    """Raises BackendError if a text that fits the batch is too long for the engine, as where the model takes less."""
    longest, batch = properties.get("n_ctx", ""), backend.settings.batch_tokens
    if longest.isdecimal() and int(longest) < batch:
        message = f"backend {backend.name} takes {longest} tokens of a text, less than its batch_tokens = {batch}"
        raise BackendError(f"{message}: set batch_tokens and max_input_tokens = {longest}, or a larger --ctx-size")


async def _special_tokens(backend: LlamaClient, tokenize: Tokenize) -> SpecialTokens:
    empty, text = await tokenize(["", TEXT])
    try:
        return special_tokens([*map(int, empty)], [*map(int, text)])
    except ValueError as error:
        raise BackendError(f"backend {backend.name} has no fixed tokens around a text: {error}") from error


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


async def _images(backend: LlamaClient, tokenize: Tokenize) -> ImagePrompt | None:
    """The prompt of its images; None if it takes none. Raises BackendError."""
    if (images := backend.settings.images) is None:
        return None
    return await image_prompt(backend, images.marker, tokenize, picture_of(KNOWN_PIXELS))


async def _provenance(backend: LlamaClient, family: Family, properties: Mapping[str, str]) -> Provenance:
    settings = backend.settings
    digest = await asyncio.to_thread(digest_of, settings.model_file) if settings.model_file else UNKNOWN
    lora = await asyncio.to_thread(digest_of, settings.lora_file) if settings.lora_file else None
    known = UNKNOWN not in {digest, lora}
    space = space_of(digest, family, backend.name, lora=lora) if known else UNKNOWN
    mmproj = settings.images and settings.images.mmproj_file
    return Provenance(
        digest=digest,
        lora=lora,
        pooling=family.weights.pooling,
        quantization=properties.get("model_ftype", UNKNOWN),
        engine=engine_name(properties.get("build_info", "")),
        space=space,
        size=await backend.size(),
        image_space=image_space_of(space, await asyncio.to_thread(digest_of, mmproj) if mmproj else UNKNOWN)
        if settings.images
        else None,
    )


async def _own_tokenizer(backend: LlamaClient, words: Words) -> Tokenizer | NoTokenizer:
    """The file's own tokenizer if it is right, else the engine's. Raises BackendError if only the former will do."""
    path = backend.settings.model_file
    if path is None and words == "engine":
        return NoTokenizer("set model_file")
    try:
        return await _compared(backend, words)
    except UnsupportedTokenizer as error:
        if words == "original":
            message = f'backend {backend.name} needs the original\'s tokens ([tokenizer] words = "original")'
            raise BackendError(f"{message}, which are not available: {error}") from error
        log.warning("%s: %s: the engine tokenises every text", path, error)
        return NoTokenizer(f"the engine tokenises, because {error}")


async def _compared(backend: LlamaClient, words: Words) -> Tokenizer:
    """The file's own tokenizer. Raises UnsupportedTokenizer if its tokens differ from the engine's.

    With `words` "original" they may differ, but not for ASCII text, and the engine must know the last id.
    """
    if (path := backend.settings.model_file) is None:
        raise UnsupportedTokenizer("no model_file is set")
    tokenizer = await asyncio.to_thread(load_tokenizer, path)
    pinned = zip(PINNED_TEXTS, tokenizer.encode(PINNED_TEXTS), strict=True)
    differing = [text for text, ids in pinned if ids != (await backend.tokenize(text)).tolist()]
    plain = [text for text in differing if text.isascii()]
    if wrong := plain or (differing if words == "engine" else []):
        hint = "" if plain else ' ([tokenizer] words = "original" in the family file serves the original\'s)'
        raise UnsupportedTokenizer(f"our tokens differ from the engine's for {wrong[0][:60]!r}{hint}")
    if words == "original":
        await backend.embed([np.array([tokenizer.size - 1], dtype=np.int32)])
    if differing:
        texts = ", ".join(f"{text[:20]!r} …" for text in differing)
        log.debug(
            "%s: the original model's tokens are used, as the family asks; llama.cpp makes others for %s", path, texts
        )
    return tokenizer


@dataclass(frozen=True, slots=True)
class _EngineTokenizer:
    backend: LlamaClient

    async def __call__(self, texts: Sequence[str]) -> list[Ids]:
        return [await self.backend.tokenize(text) for text in texts]
