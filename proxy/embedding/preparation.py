"""Prepares a request's texts: token ids become text, texts get prefix and Unicode form, then token ids of the model.

Texts are bounded before each step, and every error names one index. Images are left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, Self, TypeVar
from unicodedata import is_normalized

from proxy.contract.family import UnicodeForm
from proxy.embedding import truncation
from proxy.errors import ProxyError
from proxy.models.served_model import ServedModel
from proxy.tokens import foreign_ids
from proxy.tokens.foreign_ids import Decode
from proxy.tokens.tokenize import in_parts
from proxy.tokens.unicode_form import SHRINKS, normalized
from proxy.types import EmbedRequest, Ids, ImageSource

LARGE_FORM = 100_000  # characters from which a thread is worth it: 0.2 ms, or 20 if all of them are marks


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparationRules:
    """At most `limit` tokens an input, prefix included. `decode` reads token ids; None: the model's own tokenizer."""

    limit: int
    form: UnicodeForm | None
    decode: Decode | None


@dataclass(frozen=True, slots=True)
class PreparedInputs:
    """The token ids of each text, by index, and the errors of the others."""

    ids: dict[int, Ids]
    failed: dict[int, ProxyError]


@dataclass(frozen=True, slots=True)
class PreparedTexts:
    """Each input as text, by index, bounded by what can matter; and the errors of the others."""

    texts: dict[int, str]
    failed: dict[int, ProxyError]


async def prepare_inputs(
    request: EmbedRequest, prefix: str, model: ServedModel, rules: PreparationRules
) -> PreparedInputs:
    """The token ids of every text as the model is to see it. Raises the first error unless the request is partial."""
    return await _Preparation(request, model, rules).ids(prefix)


async def prepare_texts(request: EmbedRequest, model: ServedModel, rules: PreparationRules) -> PreparedTexts:
    """Every input as text, without prefix and Unicode form. Raises the first error unless the request is partial."""
    return await _Preparation(request, model, rules).texts()


class _Sliced(Protocol):
    """A text, or token ids."""

    def __len__(self) -> int: ...
    def __getitem__(self, part: slice, /) -> Self: ...


T = TypeVar("T", bound=_Sliced)


class _Preparation:
    def __init__(self, request: EmbedRequest, model: ServedModel, rules: PreparationRules) -> None:
        self._request, self._model, self._rules = request, model, rules
        self._cut: set[int] = set()
        self._failed: dict[int, ProxyError] = {
            index: one.error(f"input.{index}") for index, one in request.refused.items()
        }

    async def texts(self) -> PreparedTexts:
        inputs = {
            index: one
            for index, one in enumerate(self._request.inputs)
            if index not in self._failed and not isinstance(one, ImageSource)
        }
        longest = self._model.longest_token
        bounded = self._bounded(inputs, longest and longest * SHRINKS)
        texts, undecodable = await foreign_ids.texts_of(bounded, self._rules.decode or self._model.decode)
        self._fail(undecodable)
        return PreparedTexts(texts, self._failed)

    async def ids(self, prefix: str) -> PreparedInputs:
        texts = (await self.texts()).texts
        trained = await _as_trained(prefix, list(texts.values()), self._rules.form)
        bounded = self._bounded(dict(zip(texts, trained, strict=True)), self._model.longest_token)
        inputs = dict(zip(bounded, await self._model.tokenize(list(bounded.values())), strict=True))
        limit, special = self._rules.limit, self._model.special_tokens
        if self._request.truncate:
            self._fail(self._unread(inputs))
        else:
            self._fail_too_long(truncation.too_long(inputs, limit))
        self._fail({index: truncation.empty(index) for index, ids in inputs.items() if not len(ids)})
        left = {index: ids for index, ids in inputs.items() if index not in self._failed}
        return PreparedInputs(
            {index: truncation.cut_ids(ids, limit, special) for index, ids in left.items()}, self._failed
        )

    def _unread(self, inputs: Mapping[int, Ids]) -> dict[int, ProxyError]:
        """The errors of texts that were cut too early to fill the limit."""
        enough = self._rules.limit + truncation.MARGIN
        few = {index for index in self._cut & inputs.keys() if len(inputs[index]) < enough}
        return {index: truncation.unread(index) for index in few} if self._model.longest_token is None else {}

    def _bounded(self, inputs: Mapping[int, T], longest_token: int | None) -> dict[int, T]:
        if not self._request.truncate:
            self._fail_too_long(truncation.huge(inputs, self._rules.limit, longest_token))
        most = truncation.kept(self._rules.limit, longest_token)
        left = {index: one for index, one in inputs.items() if index not in self._failed}
        self._cut |= {index for index, one in left.items() if len(one) > most}
        return {index: one[:most] if index in self._cut else one for index, one in left.items()}

    def _fail_too_long(self, counts: Mapping[int, str]) -> None:
        # With late chunking a chunk that is too long means that the whole document is.
        if counts and (self._request.late or not self._request.partial):
            raise truncation.refusal(counts, self._rules.limit)
        self._failed |= {
            index: truncation.refusal({index: count}, self._rules.limit) for index, count in counts.items()
        }

    def _fail(self, errors: Mapping[int, ProxyError]) -> None:
        if errors and not self._request.partial:
            raise errors[min(errors)]
        self._failed |= errors


async def _as_trained(prefix: str, texts: Sequence[str], form: UnicodeForm | None) -> list[str]:
    """Each text as the model was trained to see it: its prefix (kept even for an empty text), in that Unicode form."""
    prefixed = [prefix + text for text in texts]
    small = sum(map(len, prefixed)) < LARGE_FORM
    if form is None or (small and all(map(partial(is_normalized, form), prefixed))):
        return prefixed
    return await in_parts(lambda part: [normalized(text, form) for text in part], prefixed, LARGE_FORM)
