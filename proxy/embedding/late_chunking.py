"""Late chunking: the inputs are computed as one document, and each gets the mean over its own tokens."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from proxy.contract.admin import State
from proxy.contract.family import UnicodeForm, VectorRules
from proxy.embedding import chunk_means
from proxy.embedding.chunk_means import Document, Span
from proxy.embedding.token_states import ModelStates
from proxy.embedding.truncation import MARGIN, at_least, cut_ids, kept
from proxy.errors import BackendError, InputTooLong, ProxyError
from proxy.faults import Invalid, PoisonedInput, invalid
from proxy.models.served_model import ServedModel
from proxy.scheduling.entries import Caller
from proxy.tokens.gguf_tokenizer import Tokenizer
from proxy.tokens.tokenize import LARGE_TEXT
from proxy.tokens.unicode_form import SHRINKS
from proxy.types import Ids, Served

_START_S, LOADED_PER_S = 1.0, 500e6  # about how long an engine takes to start, and how many bytes of a model it loads


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunks:
    """The texts of a request as they were sent, their prefix, and the Unicode form they get."""

    prefix: str
    texts: Sequence[str]
    form: UnicodeForm | None

    @property
    def characters(self) -> int:
        return len(self.prefix) + sum(map(len, self.texts))


def check_possible(rules: VectorRules, *, has_states: bool) -> None:
    """Raises Invalid if a chunk has no exact vector with this model, or with what computes it here.

    The mean over a chunk's tokens is what the model's own pooling makes of them only if that is a mean. Where a token
    sees what comes after it, a prefix of the document gives it another state: the engine must return each token's.
    """
    if rules.pooling != "mean":
        which = {"cls": "first", "last": "last"}[rules.pooling]
        raise _unsupported(
            f"is not possible: this model's vector is the state of the {which} token, not the mean over all"
        )
    if not rules.causal and not has_states:
        raise _unsupported(
            "needs the state of each token, because this model's tokens see the whole text: set token_level = true "
            "under [late_chunking] in the server's configuration, or token_backends for a proxy on its own"
        )


@dataclass(frozen=True, slots=True)
class TokenizedDocument:
    """A document's tokens, which of them each chunk has, and the errors of the chunks that have none."""

    ids: Ids
    spans: Mapping[int, Span]
    failed: Mapping[int, ProxyError]


async def tokenize(chunks: Chunks, model: ServedModel, limit: int, *, truncate: bool) -> TokenizedDocument:
    """Tokenise the document. `truncate` cuts it behind its first `limit` tokens; without it, raises InputTooLong.

    Raises Invalid if the engine tokenises for this model: it does not say where tokens are in the text.
    """
    tokenizer = model.own_tokenizer("late_chunking", "needs")
    encode = partial(_encode, chunks, tokenizer, limit, truncate=truncate)
    document, ids, offsets = encode() if chunks.characters < LARGE_TEXT else await asyncio.to_thread(encode)
    special = model.special_tokens
    own = min(len(ids), limit) - len(special.after)  # the special tokens at the end belong to no chunk
    found = chunk_means.spans(document, np.array(offsets).reshape(-1, 2))
    spans = chunk_means.within(found, own)
    dropped = [index for index in range(document.chunks) if index not in spans]
    failed = {index: _dropped(index, limit) if found[index] else _empty(index) for index in dropped}
    return TokenizedDocument(np.asarray(cut_ids(ids, limit, special), dtype=np.int32), spans, failed)


async def embed_chunks(
    document: TokenizedDocument, model: ServedModel, states: ModelStates | None, caller: Caller
) -> Served:
    """The mean over each chunk's own tokens, computed the quicker way of those that `check_possible` allows.

    `states` may be missing for a causal model, or fail. Raises the first error of a chunk, unless the caller is partial
    and some chunk has none; Invalid if a chunk is too short for the engine's rounding; otherwise like
    `ServedModel.embed`.
    """
    if document.failed and not (caller.partial and document.spans):
        raise document.failed[min(document.failed)]
    if states and not model.rules.causal:
        return await _whole(document, states, caller)
    inexact = chunk_means.too_fine(document.spans, await model.rounding_error(caller))
    lengths = chunk_means.prefix_lengths(document.spans)
    if states and (inexact or chunk_means.by_token_is_quicker(lengths, len(document.ids), _speeds(states))):
        try:
            return await _by_token(document, states, caller)
        except PoisonedInput:
            pass  # computing by prefixes tells which chunk it is
        except BackendError:
            if inexact:
                raise
    if inexact:
        raise _inexact(inexact)
    return await _by_prefixes(document, lengths, model, caller)


def _encode(
    chunks: Chunks, tokenizer: Tokenizer, limit: int, *, truncate: bool
) -> tuple[Document, list[int], list[tuple[int, int]]]:
    """The document, bounded by what can matter, its tokens, and where each of the first `limit` is in it."""
    longest = tokenizer.longest and tokenizer.longest * SHRINKS
    if not truncate and chunks.characters > kept(limit, longest):
        raise _too_long(at_least(chunks.characters, longest), limit)
    document = chunk_means.document(chunks.prefix, chunks.texts, chunks.form, kept(limit, longest))
    most = kept(limit, tokenizer.longest)
    if not truncate and len(document.text) > most:
        raise _too_long(at_least(len(document.text), tokenizer.longest), limit)
    bounded = document.cut(most)
    ids, offsets = tokenizer.encode_with_offsets(bounded.text, limit)
    if not truncate and len(ids) > limit:
        raise _too_long(f"{len(ids)} tokens", limit)
    if tokenizer.longest is None and not bounded.whole and len(ids) < limit + MARGIN:
        raise _too_long(f"{chunks.characters} characters and few tokens", limit)
    return bounded, ids, offsets


def _speeds(states: ModelStates) -> chunk_means.Speeds:
    model, by_token = states.model, states.by_token
    file = by_token.backend.settings.model_file
    start_s = _START_S + (file.stat().st_size / LOADED_PER_S if file and file.is_file() else 0.0)
    if by_token.report().state is State.READY:
        start_s = 0.0
    return chunk_means.Speeds(
        pooled=model.dispatcher.throughput.tokens_per_s,
        by_token=by_token.dispatcher.throughput.tokens_per_s,
        start_s=start_s,
    )


async def _whole(document: TokenizedDocument, states: ModelStates, caller: Caller) -> Served:
    """By the states of all tokens, the only way if tokens see what comes after them."""
    try:
        return await _by_token(document, states, caller)
    except PoisonedInput as error:
        message = "the engine cannot compute this document: send its inputs one by one, without late_chunking"
        raise _unsupported(message) from error


async def _by_token(document: TokenizedDocument, states: ModelStates, caller: Caller) -> Served:
    rows = await states.states(document.ids, caller)
    return Served(chunk_means.means_of_states(document.spans, rows), len(document.ids), document.failed)


async def _by_prefixes(
    document: TokenizedDocument, lengths: Sequence[int], model: ServedModel, caller: Caller
) -> Served:
    try:
        outcome = await model.embed([document.ids[:n] for n in lengths], replace(caller, partial=False), exclusive=True)
    except PoisonedInput as error:
        raise _named(lengths[error.index], document.spans) from error
    pooled = dict(zip(lengths, outcome.rows, strict=True))
    return Served(chunk_means.means(document.spans, pooled), len(document.ids), document.failed)


def _named(length: int, spans: Mapping[int, Span]) -> PoisonedInput:
    """Maps the failed prefix, of so many tokens, back to the chunk the caller sent."""
    return PoisonedInput(next(index for index, span in spans.items() if span.end >= length))


def _too_long(count: str, limit: int) -> InputTooLong:
    advice = f"at most {limit} tokens are served (prefix included); send fewer chunks at a time or set truncate: true"
    return InputTooLong(f"with late_chunking the inputs are one document, of {count}; {advice}", param="input")


def _dropped(index: int, limit: int) -> InputTooLong:
    advice = 'leave it out, or set on_error: "partial" for the vectors of the others'
    return InputTooLong(f"input {index} lies behind the document's first {limit} tokens; {advice}", param="input")


def _empty(index: int) -> Invalid:
    reason = "is empty, or has only spaces or accents: it has no token of its own for late_chunking; leave it out"
    return invalid(f"input.{index}", reason)


def _unsupported(message: str) -> Invalid:
    return invalid("late_chunking", message, kind="unsupported", given="true")


def _inexact(cosines: Mapping[int, float]) -> Invalid:
    index, least = min(cosines), chunk_means.WORST_COSINE
    message = (
        f"input {index} is too short in so long a document for this engine's rounding (cosine {cosines[index]:.4f} "
    )
    advice = f"to the exact vector, at least {least} is required): send longer chunks, or fewer at a time"
    return _unsupported(message + advice)
