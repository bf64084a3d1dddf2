"""Cuts a request into pieces that different nodes can compute, and merges their results. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from proxy.errors import ProxyError
from proxy.front.node_api import reindexed
from proxy.models.admission import estimate
from proxy.types import EmbedRequest, EmbedResult, ImageSource, Input

BYTES_PER_ID = 6  # of a token id as JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class PieceRules:
    """At most so many texts in a piece, and bytes of them."""

    texts: int
    bytes: int


class MixedSpaces(Exception):
    """The pieces were computed in different vector spaces: the model changed meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Consecutive inputs of a request, of which `first` is the index of the first. `tokens` is an estimate.

    An input that its dialect refused is there as the client sent it: the node refuses it with the same words. `images`:
    it has an image, or a PDF.
    """

    first: int
    inputs: Sequence[object]
    tokens: int
    images: bool = False
    pdf: bool = False

    @property
    def rows(self) -> int | None:
        """How many rows its answer has; None for a PDF, whose pages the node counts."""
        return None if self.pdf else len(self.inputs)

    def singles(self) -> list["Piece"]:
        """A piece for each input."""
        share = self.tokens // len(self.inputs)
        return [
            Piece(first=self.first + at, inputs=[one], tokens=share, images=self.images)
            for at, one in enumerate(self.inputs)
        ]


def whole(request: EmbedRequest) -> Piece:
    """The request as one piece."""
    return _piece(request, 0, len(request.inputs))


def cut_pieces(request: EmbedRequest, rules: PieceRules) -> list[Piece]:
    """The pieces of a request, in order. The chunks of a document, and multi-vectors, are one."""
    if request.late or request.multivector:
        return [whole(request)]
    bounds = [*_starts(request.inputs, rules), len(request.inputs)]
    return [_piece(request, start, end) for start, end in pairwise(bounds)]


def merge(results: Sequence[tuple[int, EmbedResult]], failed: Mapping[int, ProxyError]) -> EmbedResult:
    """All rows in order, tokens counted once, failed inputs under their index in the whole request.

    Each result comes with the index of its piece's first input; the inputs in `failed` are in none of them. Raises
    MixedSpaces.
    """
    ordered = sorted(results, key=lambda pair: pair[0])
    image_spaces = {result.provenance.image_space for _, result in ordered} - {None}
    if len({result.provenance.space for _, result in ordered}) > 1 or len(image_spaces) > 1:
        raise MixedSpaces
    of_images = [result.image_tokens for _, result in ordered if result.image_tokens is not None]
    errors = {
        start + index: reindexed(error, start) for start, result in ordered for index, error in result.failed.items()
    }
    return replace(
        ordered[0][1],
        vectors=np.concatenate([result.vectors for _, result in ordered if len(result.vectors)]),
        tokens=sum(result.tokens for _, result in ordered),
        image_tokens=sum(of_images) if of_images else None,
        provenance=replace(ordered[0][1].provenance, image_space=next(iter(image_spaces), None)),
        failed={**errors, **failed},
    )


def _starts(inputs: Sequence[Input], rules: PieceRules) -> Iterator[int]:
    """The indexes at which pieces start. An input that is larger than a piece is one by itself, and so is an image."""
    start = size = 0
    yield start
    for index, one in enumerate(inputs):
        here = rules.bytes + 1 if isinstance(one, ImageSource) else size_of(one)
        if index > start and (index - start >= rules.texts or size + here > rules.bytes):
            yield index
            start, size = index, 0
        size += here


def size_of(one: Input) -> int:
    """About how many bytes the input has as JSON."""
    if isinstance(one, ImageSource):
        return len(one.given)
    if isinstance(one, str):
        return len(one) if one.isascii() else len(one.encode(errors="replace"))
    return BYTES_PER_ID * len(one)


def _piece(request: EmbedRequest, start: int, end: int) -> Piece:
    inputs = request.inputs[start:end]
    given: Sequence[object] = inputs
    if request.refused:
        refused = request.refused
        given = [refused[at].given if at in refused else one for at, one in enumerate(inputs, start)]
    images = [one for one in inputs if isinstance(one, ImageSource)]
    given = [one.item if isinstance(one, ImageSource) else one for one in given]
    pdf = any(one.pdf for one in images)
    return Piece(first=start, inputs=given, tokens=estimate(inputs), images=bool(images), pdf=pdf)
