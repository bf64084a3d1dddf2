"""Decides which text made an engine end, from what happened with each text and without it. Pure decisions.

An engine may also end for reasons of its own: the kernel's OOM killer, a GPU that resets, an operator. So a text is
poison only if the engine was right directly before it, ended with it alone, came back, was verified, lived for a while
without it, and ended with it alone once more; for a text of a long batch, several times more. If the engine ends
without the text meanwhile, the engine itself is at fault, and all suspects are cleared. A row that is not finite counts
like an end.
"""

import hashlib
import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

MIN_CONSECUTIVE = 2  # consecutive ends with the text alone make it poison
LONGER_S = (0.3, 3.0)  # batches longer than each need one more: an end by chance meets a long batch more often
MAX_FAILURES = 5  # ends with the text alone, consecutive or not, after which its request fails
QUIET_S, LONGEST_QUIET_S = 3.0, 30.0  # how long an engine must live without a suspect before it is retried
QUIET_PER_BATCH = 10  # and so many times its batch's duration: an end by chance would hit it once in so many
FIRST_S, LONGEST_QUARANTINE_S = 600.0, 4 * 3600.0  # how long poison is refused: the first time, and at most
KEPT = 4096
KEPT_S = 24 * 3600.0


class Verdict(StrEnum):
    """What to do with a text of a failed batch. GIVE_UP: its request fails, and may be sent again later."""

    RETRY = "retry"
    GIVE_UP = "give up"
    POISON = "poison"


@dataclass(slots=True)
class Evidence:
    """The ends of an engine with one text: `consecutive` ones, and all `failures`.

    `needed` consecutive ones make it poison. Poison is refused `until` that time, and was quarantined `quarantines`
    times. `quiet_s`: how long the engine has to live without the text before it is retried.
    """

    consecutive: int = 0
    failures: int = 0
    needed: int = MIN_CONSECUTIVE
    quiet_s: float = 0.0
    quarantines: int = 0
    until: float = 0.0
    touched: float = 0.0


@dataclass(slots=True)
class Suspects:
    """The latest records of one backend: digests only, never a text. Times are the caller's clock, in seconds.

    True while there are any: nothing is hashed while there are none, which is nearly always.
    """

    quiet_s: float = QUIET_S
    _records: OrderedDict[bytes, Evidence] = field(default_factory=OrderedDict)
    _computed: dict[int, None] = field(default_factory=dict)  # hashes of texts that were computed, the latest last

    def __bool__(self) -> bool:
        return bool(self._records)

    def quiet_before(self, ids: bytes, now: float) -> float | None:
        """How long the engine has to live before this text is tried alone; None: it is not suspected.

        Infinite: it is quarantined.
        """
        record = self._records.get(text_digest(ids))
        if record is None:
            return None
        return math.inf if now < record.until else record.quiet_s

    def was_right(self, ids: bytes) -> None:
        """The text was computed: it is not suspected any more."""
        key = hash(ids)
        self._computed.pop(key, None)
        self._computed[key] = None
        if len(self._computed) > KEPT:
            del self._computed[next(iter(self._computed))]
        if self._records:
            self._records.pop(text_digest(ids), None)

    def ended_with(self, texts: Sequence[bytes], batch_s: float, now: float) -> list[Verdict]:
        """The engine ended, or did not answer, during a batch of these that takes about so long; a verdict for each.

        With one text it may be that one; with several it is one of them or none, and each is retried alone.
        """
        if len(texts) == 1:
            record = self._record(texts[0], now)
            record.quiet_s = min(LONGEST_QUIET_S, max(self.quiet_s, QUIET_PER_BATCH * batch_s))
            record.needed = MIN_CONSECUTIVE + sum(batch_s > longer_s for longer_s in LONGER_S)
            return [self._blame(texts[0], record, now)]
        self.ended_without()
        for ids in texts:
            self._record(ids, now)
        return [Verdict.RETRY] * len(texts)

    def not_finite(self, ids: bytes, now: float) -> Verdict:
        """The text's own row was not finite, alone or in a shared batch."""
        record = self._record(ids, now)
        record.quiet_s, record.needed = 0.0, MIN_CONSECUTIVE
        return self._blame(ids, record, now)

    def ended_without(self) -> None:
        """The engine ended while idle, during verification or with other texts: earlier suspects may be innocent."""
        for record in self._records.values():
            record.consecutive = 0

    def quarantined(self, now: float) -> dict[str, float]:
        """The digests of the texts that are refused now, and for how many more seconds."""
        left = {digest.hex(): record.until - now for digest, record in self._records.items()}
        return {digest: seconds for digest, seconds in left.items() if seconds > 0}

    def clear(self) -> None:
        """Forget everything: it is another engine, or another model."""
        self._records.clear()
        self._computed.clear()

    def _blame(self, ids: bytes, record: Evidence, now: float) -> Verdict:
        record.failures += 1
        key = hash(ids)
        if key in self._computed:  # it was computed before: one failure may be chance
            del self._computed[key]
        else:
            record.consecutive += 1
        if record.consecutive >= record.needed:
            record.until = now + min(LONGEST_QUARANTINE_S, FIRST_S * 2.0**record.quarantines)
            record.quarantines += 1
            record.consecutive = record.needed - 1  # after the quarantine, one failure is enough
            return Verdict.POISON
        return Verdict.GIVE_UP if record.failures >= MAX_FAILURES else Verdict.RETRY

    def _record(self, ids: bytes, now: float) -> Evidence:
        key = text_digest(ids)
        record = self._records.setdefault(key, Evidence())
        record.touched = now
        self._records.move_to_end(key)
        while len(self._records) > KEPT or next(iter(self._records.values())).touched < now - KEPT_S:
            self._records.popitem(last=False)
        return record


def text_digest(ids: bytes) -> bytes:
    """Identifies a text in a record and in the log."""
    return hashlib.blake2b(ids, digest_size=16).digest()
