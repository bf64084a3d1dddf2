"""Which texts are not sent to the engine any more, because they ended it or came back as NaN, twice."""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, field

KEPT = 4096
KEPT_S = 3600.0  # the engine may be another one by then


@dataclass(slots=True)
class Quarantine:
    """Digests only, never a text; the oldest go when there are too many. Times are the caller's clock, in seconds."""

    kept: int = KEPT
    kept_s: float = KEPT_S
    _until: OrderedDict[bytes, float] = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        return len(self._until)

    def add(self, ids: bytes, now: float) -> str:
        """Keep that text out from now on; returns its digest, for the log."""
        digest = _digest(ids)
        self._until[digest] = now + self.kept_s
        self._until.move_to_end(digest)
        while len(self._until) > self.kept:
            self._until.popitem(last=False)
        return digest.hex()

    def holds(self, ids: bytes, now: float) -> bool:
        """Nothing is hashed while nothing is kept out, which is nearly always."""
        while self._until and next(iter(self._until.values())) <= now:
            self._until.popitem(last=False)
        return bool(self._until) and _digest(ids) in self._until


def _digest(ids: bytes) -> bytes:
    return hashlib.blake2b(ids, digest_size=16).digest()
