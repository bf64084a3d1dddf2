"""A part on its way: which texts of its rows are sent, in which calls, and how each row ended."""

import hashlib
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from threading import Lock

import numpy as np

from launcher.arrays import F32
from launcher.corpus.rows.records import CorpusRow
from proxy.bulk.ledger import RowRange
from proxy.bulk.runner import RowError

CALL_TEXTS = 64
CALL_BYTES = 256 * 1024  # of texts: a call of long ones has fewer
KNOWN_BYTES = 64 * 2**20


class KnownVectors:
    """The vectors of the texts of the last parts, so that a text that comes again is not computed again."""

    def __init__(self, most_bytes: int = KNOWN_BYTES) -> None:
        self._most = most_bytes
        self._vectors: OrderedDict[bytes, F32] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()  # parts are read and written in threads

    def get(self, text: str) -> F32 | None:
        with self._lock:
            key = _key(text)
            if (vector := self._vectors.get(key)) is not None:
                self._vectors.move_to_end(key)
            return vector

    def put(self, text: str, vector: F32) -> None:
        with self._lock:
            key = _key(text)
            if key not in self._vectors:
                self._vectors[key] = vector.copy()  # not a row that keeps its whole answer in memory
                self._bytes += vector.nbytes
            while self._bytes > self._most:
                self._bytes -= self._vectors.popitem(last=False)[1].nbytes


@dataclass(frozen=True, slots=True)
class PendingPart:
    """`unique` are the texts to compute. `only`: the rows that have no vector yet, where the others have."""

    range: RowRange
    rows: Sequence[CorpusRow]
    only: Collection[int] | None = None
    known: KnownVectors | None = None
    unique: tuple[str, ...] = field(init=False)
    _found: dict[str, F32] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        texts = dict.fromkeys(row.text for _, row in self.wanted() if row.text is not None)
        for text in texts:
            if self.known and (vector := self.known.get(text)) is not None:
                self._found[text] = vector
        object.__setattr__(self, "unique", tuple(text for text in texts if text not in self._found))

    def wanted(self) -> Iterator[tuple[int, CorpusRow]]:
        """The rows that are to get a vector, by their places in the part."""
        return ((at, row) for at, row in enumerate(self.rows) if self.only is None or at in self.only)

    def calls(self) -> Sequence[Sequence[str]]:
        """The texts to compute, call by call."""
        calls, call, size = list[list[str]](), list[str](), 0
        for text in self.unique:
            if call and (len(call) == CALL_TEXTS or size + len(text) > CALL_BYTES):
                calls.append(call)
                call, size = [], 0
            call.append(text)
            size += len(text)
        return [*calls, call] if call else calls

    def outcome(self, results: Sequence[F32 | RowError], dimensions: int) -> tuple[F32, dict[int, RowError]]:
        """The wanted rows' vectors in a matrix of the whole part, zeros elsewhere, and the errors of the others."""
        by_text: dict[str, F32 | RowError] = {**self._found, **dict(zip(self.unique, results, strict=True))}
        vectors = np.zeros((len(self.rows), dimensions), dtype=np.float32)
        errors = dict[int, RowError]()
        for at, row in self.wanted():
            result = row.error if row.text is None else by_text[row.text]
            if isinstance(result, np.ndarray):
                vectors[at] = result
            else:
                errors[at] = result or RowError("no_text", "it has no text")
        if self.known:
            for text, result in by_text.items():
                if isinstance(result, np.ndarray):
                    self.known.put(text, result)
        return vectors, errors


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()
