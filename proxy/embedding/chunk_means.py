"""The maths of late chunking, pure: chunks to one document, the tokens of each chunk, and the mean over them.

Where the model is causal and its pooled vector is a mean, the sum over the first n tokens is n times the vector of a
text of just those; the sum over a chunk is the difference of two such sums: no engine has to give a vector per token.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from proxy.contract.family import UnicodeForm
from proxy.tokens.unicode_form import border, normalized
from proxy.types import Matrix

F64 = NDArray[np.float64]
WORST_COSINE = 0.999
JSON_S = 1.1e-3  # how long llama-server takes to write the state of a token (measured, 2048 dimensions)
MANY_TIMES = 4  # without known speeds, by token if the prefixes have so many times the tokens of the document


@dataclass(frozen=True, slots=True)
class Document:
    """`text` is as the model gets it, prefix and all; `ends[i]` is where its first i chunks end, in characters.

    `ends[0]` is the end of the prefix. If it is not `whole`, this is the start of a longer one.
    """

    text: str
    ends: tuple[int, ...]
    whole: bool = True

    @property
    def chunks(self) -> int:
        return len(self.ends) - 1

    def is_empty(self, chunk: int) -> bool:
        """Whether the chunk has no text, wherever the document was cut."""
        end = self.ends[chunk + 1]
        return self.ends[chunk] == end and (self.whole or end < len(self.text))

    def cut(self, most: int) -> "Document":
        """The first `most` characters."""
        whole = self.whole and len(self.text) <= most
        return Document(self.text[:most], tuple(min(end, most) for end in self.ends), whole)


class Span(NamedTuple):
    """A chunk's tokens, from `start` to before `end`."""

    start: int
    end: int


def document(prefix: str, chunks: Sequence[str], form: UnicodeForm | None, most: int = sys.maxsize) -> Document:
    """Join the prefix and the chunks as they are, in that Unicode form.

    Nothing is put between them: a caller that cut a text gets that text. Characters that Unicode composes with the end
    of the previous chunk belong to that one. Only the first `most` characters are read.
    """
    text = "".join([prefix, *chunks])
    joined = Document(text, tuple(accumulate(map(len, chunks), initial=len(prefix)))).cut(most)
    if form is None or (normal := normalized(joined.text, form)) == joined.text:
        return joined
    borders, done, length = list[int](), 0, 0
    for end in joined.ends:
        if end > done:
            start, done = done, border(joined.text, end, form)
            length += len(normalized(joined.text[start:done], form))
        borders.append(length)
    return Document(normal, tuple(borders), joined.whole)


def spans(document: Document, offsets: NDArray[np.int64]) -> list[Span | None]:
    """The tokens of each chunk: those that end inside it. `offsets`, (n, 2): where each token starts and ends.

    Most tokens of a word begin with its space, so that space may belong to the previous chunk, or the prefix. A chunk
    that lies inside one token gets that token; None stands for a chunk without any: empty, or nothing but spaces where
    the tokenizer drops these.
    """
    starts, ends = offsets.T
    borders = np.searchsorted(ends, document.ends, side="right").tolist()
    found = list[Span | None]()
    for index, (first, last) in enumerate(pairwise(borders)):
        apart = first == last < len(starts) and starts[first] >= document.ends[index + 1]
        found.append(None if document.is_empty(index) or apart else Span(first, max(last, first + 1)))
    return found


def within(found: Sequence[Span | None], tokens: int) -> dict[int, Span]:
    """The spans that have tokens among the first `tokens`, by chunk, cut there."""
    return {i: Span(span.start, min(span.end, tokens)) for i, span in enumerate(found) if span and span.start < tokens}


def prefix_lengths(found: Mapping[int, Span]) -> list[int]:
    """The lengths, ascending, of the document's prefixes whose sums are needed."""
    return sorted({length for span in found.values() for length in span} - {0})


def cost(tokens: int, chunks: int) -> int:
    """About how many tokens are computed for a document of so many tokens and chunks."""
    return tokens * (chunks + 1) // 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Speeds:
    """Tokens per second of the pooled engine and of the one that gives every token; 0.0 before the first batch.

    `start_s` is how long the second takes to start.
    """

    pooled: float
    by_token: float
    start_s: float


def by_token_is_quicker(prefixes: Sequence[int], tokens: int, speeds: Speeds) -> bool:
    """Whether computing the document once, token by token, is quicker than all its prefixes of those lengths."""
    if not speeds.pooled:
        return sum(prefixes) > MANY_TIMES * tokens
    per_token = 1 / speeds.by_token if speeds.by_token else 1 / speeds.pooled + JSON_S
    return speeds.start_s + tokens * per_token < sum(prefixes) / speeds.pooled


def means_of_states(found: Mapping[int, Span], states: Matrix) -> Matrix:
    """The mean over each chunk's tokens, (chunks, n_embd), of the states of all tokens, (tokens, n_embd)."""
    rows = [states[span.start : span.end].mean(axis=0, dtype=np.float64) for span in found.values()]
    return np.array(rows, dtype=np.float32)


def means(found: Mapping[int, Span], pooled: Mapping[int, Matrix | F64]) -> Matrix:
    """The mean over each chunk's tokens, (chunks, n_embd). `pooled` has the vector of the first n tokens by n."""
    sums = {n: n * vector.astype(np.float64) for n, vector in pooled.items()}
    sums[0] = np.zeros_like(next(iter(sums.values())))
    rows = [(sums[span.end] - sums[span.start]) / (span.end - span.start) for span in found.values()]
    return np.array(rows, dtype=np.float32)


def too_fine(found: Mapping[int, Span], rounding_error: float) -> dict[int, float]:
    """The chunks that are too short for the engine's rounding, by index: about the cosine that they would have.

    A relative error of a sum over n tokens is n/m times as large in a chunk of m.
    """
    errors = {index: rounding_error * span.end / (span.end - span.start) for index, span in found.items()}
    cosines = {index: 1 / (1 + error * error) ** 0.5 for index, error in errors.items()}
    return {index: cosine for index, cosine in cosines.items() if cosine < WORST_COSINE}
