"""The line before one backend: who is admitted, and what goes into the next call. Plain decisions; `lane` acts.

llama-server must never hold more than one batch that fits its slots and its physical batch: more gives wrong vectors,
500s and starvation (traps T2, T4, T9). So the waiting is done here, in two lanes. A request of few and short texts is
interactive and goes first; the rest is bulk, goes in small pieces while anybody is in a hurry, and has its share.
"""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from functools import partial

from proxy.errors import DeadlineExceeded
from proxy.scheduling.entries import QueuedRequest, QueuedText, TokenizedText
from proxy.scheduling.fairness import BatchBudget, Expired, FairQueue

MIN_BULK_SHARE = 0.25  # of the tokens, at least, while both lanes wait
MAX_BULK_SHARE = 0.5  # what that grows to as bulk waits
AGEING_S = 30.0  # until it has grown so far
BATCH_S = 0.25  # for about so long who comes has to wait for the call in flight, on a machine however slow


class BatchQueue:
    """`texts` and `tokens` wait to be taken, `max_tokens` at most.

    Identical texts that wait or are in flight are one.
    """

    def __init__(self, *, slots: int, batch_tokens: int, max_tokens: int) -> None:
        self._slots, self._batch_tokens, self.max_tokens = slots, batch_tokens, max_tokens
        # Measured on llama.cpp: a bulk cut into half-full calls costs it 7 %, and a query between them waits a tenth.
        self._small_texts, self._small_tokens = max(1, slots // 2), max(1, batch_tokens // 4)
        self._least_tokens = max(1, batch_tokens // 8)  # in fewer the weights are read for too little work
        self._interactive, self._bulk = FairQueue(), FairQueue()
        self._known: dict[bytes, QueuedText] = {}
        self._again: deque[list[QueuedText]] = deque()
        self._again_next = False
        self._suspects: list[QueuedText] = []  # each is to be tried alone when the engine has lived for its `quiet_s`
        self._bulk_deficit = 0.0  # tokens that bulk has before interactive
        self.texts = 0
        self.tokens = 0

    def __bool__(self) -> bool:
        return self.texts > 0

    def waiting(self) -> list[QueuedRequest]:
        """The jobs that wait for more than what is in flight."""
        aside = {job: None for group in self.aside() for text in group for job, _ in text.waiters}
        known = {job: None for text in self._known.values() if not text.taken for job, _ in text.waiters}
        return [*(aside | known)]

    def is_interactive(self, asked: Sequence[TokenizedText]) -> bool:
        """A request that fits a small call as a whole."""
        return len(asked) <= self._small_texts and sum(one.tokens for one in asked) <= self._small_tokens

    def has_room(self, tokens: int) -> bool:
        """A line in which nobody waits takes any one request."""
        return not self.tokens or self.tokens + tokens <= self.max_tokens

    def admit(self, job: QueuedRequest, inputs: Sequence[TokenizedText]) -> int | None:
        """Put what has not failed of the job in line; returns how many of its inputs need no computing of their own.

        None: the line is full.
        """
        asked = [(index, one) for index, one in enumerate(inputs) if index not in job.failed]
        new = {one.ids: one for _, one in asked if one.ids not in self._known}
        tokens = sum(one.tokens for one in new.values())
        if tokens and not self.has_room(tokens):
            return None
        self._known |= {ids: QueuedText(ids, one.tokens, one.alone, quiet_s=one.quiet_s) for ids, one in new.items()}
        for index, one in asked:
            self._known[one.ids].waiters.append((job, index))
        job.texts = [self._known[ids] for ids in dict.fromkeys(one.ids for _, one in asked)]
        self._set_aside([self._known[ids] for ids, one in new.items() if one.quiet_s is not None])
        job.tokens = sum(text.tokens for text in job.texts if not text.taken)
        self.texts += len(new)
        self.tokens += tokens
        job.interactive = self.is_interactive(inputs)
        (self._interactive if job.interactive else self._bulk).add(job)
        return len(asked) - len(new)

    def drop(self, job: QueuedRequest) -> None:
        """Nobody waits for the job any more: what only it waited for is taken out, unless that is in flight."""
        for text in job.texts:
            if text.waiters:
                text.waiters = [waiter for waiter in text.waiters if waiter[0] is not job]
                if not text.waiters and (not text.taken or self._no_suspect(text)):
                    self._leave(text)
                    self.forget(text)

    def aside(self) -> list[list[QueuedText]]:
        """The calls that are to be made once more."""
        return [*map(list, self._again), *([text] for text in self._suspects)]

    def forget(self, text: QueuedText) -> None:
        """It is done, one way or another: who asks for the same is a new text."""
        if self._known.get(text.ids) is text:
            del self._known[text.ids]
        text.taken = True

    def requeue(self, groups: Sequence[Sequence[QueuedText]]) -> None:
        """Texts of a call that went wrong: each group is to be a call of its own, every other call at most."""
        for group in groups:
            for text in group:
                self.texts += 1
                self.tokens += text.tokens
            if group[0].quiet_s is None:
                self._again.append(list(group))
            else:
                self._set_aside(group)

    def hold_back(self, text: QueuedText, now: float) -> None:
        """The texts that go alone for the same jobs are tried after it: they are longer beginnings of one document."""
        others = [other for job, _ in text.waiters for other in job.texts if other.alone and not other.taken]
        for other in others:
            other.take(now)
            other.quiet_s = text.quiet_s
        self._set_aside(others)

    def suspect_in_s(self, lived_s: float) -> float | None:
        """How long until the next one may be tried that waits until the engine has lived long enough; None without."""
        return max(0.0, min(text.quiet_s or 0.0 for text in self._suspects) - lived_s) if self._suspects else None

    def take(
        self,
        now: float,
        *,
        interactive_lately: bool = False,
        speed: float = 0.0,
        fastest: float = 0.0,
        lived_s: float = math.inf,
    ) -> list[QueuedText]:
        """The next call: at most `slots` texts and `batch_tokens` tokens, and never empty while anybody waits.

        `hurried`: somebody interactive was here lately, so a call with bulk is kept small. `speed`, in tokens per
        second, if it is known: no call is to take much longer than CALL_S. A job that cannot be done by its deadline,
        not even at `fastest` tokens per second, fails instead. Texts that wait for the engine to have lived longer than
        `lived_s` are no part of it.
        """
        self._again_next = not self._again_next
        late = partial(_late, now, fastest)
        quarter = max(self._least_tokens, int(speed * BATCH_S)) if speed else self._batch_tokens
        most = min(quarter, self._batch_tokens)
        call = self._once_more(lived_s) if self._again_next else []
        call = call or self._shared(late, now, most, interactive_lately=interactive_lately) or self._once_more(lived_s)
        for text in call:
            self._leave(text)
        return call

    def _once_more(self, lived_s: float) -> list[QueuedText]:
        while group := self._next_again(lived_s):
            for text in group:
                if not text.waiters:
                    self._leave(text)
                    self.forget(text)
            if kept := [text for text in group if text.waiters]:
                return kept
        return []

    def _next_again(self, lived_s: float) -> list[QueuedText]:
        if self._again:
            return self._again.popleft()
        for text in self._suspects:
            if (text.quiet_s or 0.0) <= lived_s:
                self._suspects.remove(text)
                return [text]
        return []

    def _set_aside(self, texts: Iterable[QueuedText]) -> None:
        for text in texts:
            text.taken = True
            self._suspects.append(text)

    def _no_suspect(self, text: QueuedText) -> bool:
        """It need not be tried any more; whether it was to be."""
        found = text.quiet_s is not None and text in self._suspects
        if found:
            self._suspects.remove(text)
        return found

    def _shared(self, late: Expired, now: float, most: int, *, interactive_lately: bool) -> list[QueuedText]:
        """Bulk as far as it is owed, then who is in a hurry, then bulk as far as the call's size allows."""
        waiting, hurry = self._bulk.first(late), self._interactive.first(late)
        if waiting is None:
            self._bulk_deficit = 0.0
        share = _share(now - waiting.since) if waiting else 0.0
        debt = min(int(self._bulk_deficit), most)
        owed = self._bulk.fill(self._room([], self._small_texts, debt), late, now) if debt > 0 else []
        quick = self._interactive.fill(self._room(owed, self._slots, most), late, now)
        tokens = min(most, self._small_tokens) if interactive_lately or hurry is not None else most
        if quick:  # their own call is what they wait for, too
            tokens //= 2
        more = self._bulk.fill(self._room([*owed, *quick], self._slots, tokens), late, now)
        self._bulk_deficit += _tokens(quick) * share / (1 - share) - _tokens(owed)
        # What nobody else had a use for costs bulk no more than it is owed.
        self._bulk_deficit = min(most, max(min(self._bulk_deficit, 0.0), self._bulk_deficit - _tokens(more)))
        return [*owed, *quick, *more]

    def _room(self, call: Sequence[QueuedText], texts: int, tokens: int) -> BatchBudget:
        left = 0 if any(text.alone for text in call) else texts - len(call)
        return BatchBudget(left, tokens - _tokens(call), empty=not call)

    def _leave(self, text: QueuedText) -> None:
        self.texts -= 1
        self.tokens -= text.tokens


def _tokens(texts: Sequence[QueuedText]) -> int:
    return sum(text.tokens for text in texts)


def _share(waited_s: float) -> float:
    """Ageing: the longer the bulk job whose turn it is has had nothing, the more of the tokens are bulk's."""
    return min(MAX_BULK_SHARE, MIN_BULK_SHARE + (MAX_BULK_SHARE - MIN_BULK_SHARE) * waited_s / AGEING_S)


def _late(now: float, fastest: float, job: QueuedRequest) -> bool:
    if now + (job.tokens / fastest if fastest else 0.0) < job.caller.deadline:
        return False
    job.fail(DeadlineExceeded("it cannot be done before its deadline: send less at a time", retry_after_s=5))
    return True
