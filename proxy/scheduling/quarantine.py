"""Which text is to blame when an engine ends. Plain decisions from what happened with a text, and without it.

An engine may also end for reasons of its own: the kernel's OOM killer, a GPU that resets, an operator. So a text is
poison only if the engine was right directly before it, ended with it alone, came back, was verified, lived for a while
without it, and ended with it alone once more. An engine that ends without the text meanwhile is sick itself, and
nothing is held against anybody any more. Where a text's own row was not finite, that counts like an end.
"""

import hashlib
import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

BLAMES = 2  # ends with the text alone, one after the other, that make it poison
MOST_DEATHS = 5  # ends with the text alone, whatever came between, after which its request fails
QUIET_S, LONGEST_QUIET_S = 3.0, 30.0  # how long an engine lives without a text that it ended with, before the next try
TIMES_QUIET = 10  # that long by the length of the call: an end by chance would hit it once in so many
FIRST_S, LONGEST_S = 600.0, 4 * 3600.0  # how long poison is refused: at first, and at most
KEPT = 4096
KEPT_S = 24 * 3600.0


class Verdict(StrEnum):
    """What becomes of a text that a call went wrong with. GIVE_UP: its request fails, and may come back later."""

    AGAIN = "again"
    GIVE_UP = "give up"
    POISON = "poison"


@dataclass(slots=True)
class Evidence:
    """What is held against a text: `blamed` in a row, `deaths` in all; poison is refused `until`, `sentences` times.

    `quiet_s`: the engine has to live for so long without it before it is tried again.
    """

    blamed: int = 0
    deaths: int = 0
    quiet_s: float = 0.0
    sentences: int = 0
    until: float = 0.0
    touched: float = 0.0


@dataclass(slots=True)
class Suspects:
    """The records of one backend. Digests only, never a text; the oldest go. Times are the caller's clock, in seconds.

    True while there are any: nothing is hashed while there are none, which is nearly always.
    """

    quiet_s: float = QUIET_S
    _records: OrderedDict[bytes, Evidence] = field(default_factory=OrderedDict)
    _computed: dict[int, None] = field(default_factory=dict)  # hashes of texts that came back right, the latest last

    def __bool__(self) -> bool:
        return bool(self._records)

    def quiet_before(self, ids: bytes, now: float) -> float | None:
        """It has to go alone, when the engine has lived for so many seconds; None: nothing is held against it.

        Infinite: it is poison, and its time is not over.
        """
        record = self._records.get(digest(ids))
        if record is None:
            return None
        return math.inf if now < record.until else record.quiet_s

    def was_right(self, ids: bytes) -> None:
        """It was computed."""
        key = hash(ids)
        self._computed.pop(key, None)
        self._computed[key] = None
        if len(self._computed) > KEPT:
            del self._computed[next(iter(self._computed))]
        if self._records:
            self._records.pop(digest(ids), None)

    def ended_with(self, texts: Sequence[bytes], call_s: float, now: float) -> list[Verdict]:
        """The engine ended, or did not answer, during a call of these that takes about so long; for each what follows.

        With one text it may be that one; with several it is one of them or none, and they are tried alone.
        """
        if len(texts) == 1:
            quiet_s = min(LONGEST_QUIET_S, max(self.quiet_s, TIMES_QUIET * call_s))
            return [self._blame(texts[0], quiet_s, now)]
        self.ended_without()
        for ids in texts:
            self._record(ids, now)
        return [Verdict.AGAIN] * len(texts)

    def not_finite(self, ids: bytes, now: float) -> Verdict:
        """Its own row was not finite, alone or among others."""
        return self._blame(ids, 0.0, now)

    def ended_without(self) -> None:
        """The engine ended idle, at its verification or with others: whoever it ended with before may be innocent."""
        for record in self._records.values():
            record.blamed = 0

    def clear(self) -> None:
        """It is another engine, or another model."""
        self._records.clear()
        self._computed.clear()

    def _blame(self, ids: bytes, quiet_s: float, now: float) -> Verdict:
        record = self._record(ids, now)
        record.quiet_s = quiet_s
        record.deaths += 1
        key = hash(ids)
        if key in self._computed:  # it was harmless before: once it may be chance
            del self._computed[key]
        else:
            record.blamed += 1
        if record.blamed >= BLAMES:
            record.until = now + min(LONGEST_S, FIRST_S * 2.0**record.sentences)
            record.sentences += 1
            record.blamed = BLAMES - 1  # when its time is over, it has one try
            return Verdict.POISON
        return Verdict.GIVE_UP if record.deaths >= MOST_DEATHS else Verdict.AGAIN

    def _record(self, ids: bytes, now: float) -> Evidence:
        key = digest(ids)
        record = self._records.setdefault(key, Evidence())
        record.touched = now
        self._records.move_to_end(key)
        while len(self._records) > KEPT or next(iter(self._records.values())).touched < now - KEPT_S:
            self._records.popitem(last=False)
        return record


def digest(ids: bytes) -> bytes:
    """What stands for a text, in a record and in the log."""
    return hashlib.blake2b(ids, digest_size=16).digest()
