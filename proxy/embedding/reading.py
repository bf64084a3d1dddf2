"""A request's inputs → texts → token ids. They are bounded before each step, and every error is of one index."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, Self, TypeVar

from proxy.contract.family import UnicodeForm
from proxy.embedding import truncation
from proxy.errors import ProxyError
from proxy.models.served_model import ServedModel
from proxy.tokens import foreign_ids
from proxy.tokens.foreign_ids import Decode
from proxy.tokens.unicode_form import SHRINKS
from proxy.types import EmbedRequest, Ids


class Sliced(Protocol):
    """A text, or token ids."""

    def __len__(self) -> int: ...
    def __getitem__(self, part: slice, /) -> Self: ...


T = TypeVar("T", bound=Sliced)


@dataclass(slots=True)
class Reading:
    """One request on its way to a model that serves at most `limit` tokens of an input.

    `failed` are the errors of inputs by themselves, of a partial request; the first of any other is raised.
    """

    request: EmbedRequest
    model: ServedModel
    limit: int
    failed: dict[int, ProxyError] = field(init=False)

    def __post_init__(self) -> None:
        self.failed = {index: one.error(f"input.{index}") for index, one in self.request.refused.items()}

    async def texts(self, decode: Decode) -> dict[int, str]:
        """Each input as text, by index, as far as it can matter."""
        inputs = {index: one for index, one in enumerate(self.request.inputs) if index not in self.failed}
        bounded = self._bounded(inputs, self.model.longest_token * SHRINKS)
        texts, unread = await foreign_ids.texts_of(bounded, decode)
        self._fail(unread)
        return texts

    async def ids(self, prefix: str, form: UnicodeForm | None, decode: Decode) -> dict[int, Ids]:
        """The token ids of each input, by index, with the prefix, in that Unicode form."""
        texts = await self.texts(decode)
        trained = await truncation.as_trained(prefix, list(texts.values()), form)
        bounded = self._bounded(dict(zip(texts, trained, strict=True)), self.model.longest_token)
        inputs = dict(zip(bounded, await self.model.tokenize(list(bounded.values())), strict=True))
        if not self.request.truncate:
            self._fail_too_long(truncation.too_long(inputs, self.limit))
        self._fail({index: truncation.nothing(index) for index, ids in inputs.items() if not len(ids)})
        return {index: ids[: self.limit] for index, ids in inputs.items() if index not in self.failed}

    def _bounded(self, inputs: Mapping[int, T], longest_token: int) -> dict[int, T]:
        if not self.request.truncate:
            self._fail_too_long(truncation.huge(inputs, self.limit, longest_token))
        most = truncation.kept(self.limit, longest_token)
        left = {index: one for index, one in inputs.items() if index not in self.failed}
        return {index: one if len(one) <= most else one[:most] for index, one in left.items()}

    def _fail_too_long(self, found: Mapping[int, str]) -> None:
        if found and (self.request.late or not self.request.partial):  # chunks of a document: it is too long as a whole
            raise truncation.refusal(found, self.limit)
        self.failed |= {index: truncation.refusal({index: count}, self.limit) for index, count in found.items()}

    def _fail(self, found: Mapping[int, ProxyError]) -> None:
        if found and not self.request.partial:
            raise found[min(found)]
        self.failed |= found
