"""The bounded queue of one backend, which composes the next batch. Pure decisions; `dispatcher` carries them out.

llama-server must never hold more than one batch that fits its slots and its physical batch: more gives wrong vectors,
500s and starvation (traps T2, T4, T9). So requests wait here, in two lanes. A request of few and short texts is
interactive and goes first; the rest is bulk, which goes in small pieces while interactive requests were seen recently,
and keeps a minimum share of the tokens.

Two lanes with a deficit for bulk, on top of two fair queues, are more than one fair queue, and kept for a reason:
simulated on the real classes, one fair-sojourn queue starves bulk when queries saturate (987 tokens/s become 15) and
doubles the median between keys.
"""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from functools import partial

from proxy.errors import DeadlineExceeded
from proxy.scheduling.entries import Caller, QueuedRequest, QueuedText, TokenizedText
from proxy.scheduling.fairness import BatchBudget, Expired, FairQueue, LaneLoad

MIN_BULK_SHARE = 0.25  # of the tokens, at least, while both lanes have waiting requests
MAX_BULK_SHARE = 0.5  # what that share grows to as bulk waits
AGEING_S = 30.0  # how long it takes to grow to the maximum
TINY_IMAGE = 69  # tokens of an image's prompt, of 64 tiles, up to which it may be interactive
BATCH_S = 0.25  # target duration of a batch: what a new request waits at most for the one in flight, on any machine


class BatchQueue:
    """Counts the `texts` and `tokens` that wait, at most `max_tokens`.

    Identical texts that wait or are in flight are one entry.
    """

    def __init__(self, *, slots: int, batch_tokens: int, max_tokens: int) -> None:
        self._slots, self._batch_tokens, self.max_tokens = slots, batch_tokens, max_tokens
        # Measured on llama.cpp: cutting bulk into half-full batches costs it 7 %, and a query between them waits a
        # tenth of the time.
        self._small_texts, self._small_tokens = max(1, slots // 2), max(1, batch_tokens // 4)
        self._least_tokens = max(1, batch_tokens // 8)  # with fewer, reading the weights is not worth it
        self._interactive, self._bulk = FairQueue(), FairQueue()
        self._known: dict[bytes, QueuedText] = {}
        self._retries: deque[list[QueuedText]] = deque()
        self._retry_next = False
        self._suspects: list[QueuedText] = []  # each to be retried alone once the engine has lived for its `quiet_s`
        self._bulk_deficit = 0.0  # tokens that bulk gets before interactive
        self.texts = 0
        self.tokens = 0

    def __bool__(self) -> bool:
        return self.texts > 0

    @property
    def lanes(self) -> dict[str, LaneLoad]:
        """What waits in each lane; batches that are to be sent again are not in one any more."""
        return {"interactive": self._interactive.load, "bulk": self._bulk.load}

    def waiting(self) -> list[QueuedRequest]:
        """The requests with texts that are not in flight yet."""
        retried = {request: None for group in self.retries() for text in group for request, _ in text.waiters}
        known = {request: None for text in self._known.values() if not text.taken for request, _ in text.waiters}
        return [*(retried | known)]

    def is_interactive(self, caller: Caller, inputs: Sequence[TokenizedText]) -> bool:
        """Whether the request fits a small batch as a whole, and is not part of a larger one."""
        return (
            not caller.bulk
            and len(inputs) <= self._small_texts
            and sum(one.tokens for one in inputs) <= self._small_tokens
            and all(one.image_tokens <= TINY_IMAGE for one in inputs)
        )

    def has_room(self, tokens: int) -> bool:
        """Whether that many more tokens may wait. An empty queue takes any one request."""
        return not self.tokens or self.tokens + tokens <= self.max_tokens

    def enqueue(self, request: QueuedRequest, inputs: Sequence[TokenizedText]) -> int | None:
        """Add the request's inputs that have not failed; return how many share a text that is known already.

        None: the queue is full.
        """
        open_inputs = [(index, one) for index, one in enumerate(inputs) if index not in request.failed]
        new = {one.ids: one for _, one in open_inputs if one.ids not in self._known}
        tokens = sum(one.tokens for one in new.values())
        if tokens and not self.has_room(tokens):
            return None
        self._known |= {
            ids: QueuedText(ids, one.tokens, one.exclusive, quiet_s=one.quiet_s, image_tokens=one.image_tokens)
            for ids, one in new.items()
        }
        for index, one in open_inputs:
            self._known[one.ids].waiters.append((request, index))
        request.texts = [self._known[ids] for ids in dict.fromkeys(one.ids for _, one in open_inputs)]
        self._suspect([self._known[ids] for ids, one in new.items() if one.quiet_s is not None])
        request.tokens = sum(text.tokens for text in request.texts if not text.taken)
        self.texts += len(new)
        self.tokens += tokens
        request.interactive = self.is_interactive(request.caller, inputs)
        (self._interactive if request.interactive else self._bulk).add(request)
        return len(open_inputs) - len(new)

    def cancel(self, request: QueuedRequest) -> None:
        """Remove a request, and the texts that only it waited for, unless they are in flight."""
        for text in request.texts:
            if text.waiters:
                text.waiters = [waiter for waiter in text.waiters if waiter[0] is not request]
                if not text.waiters and (not text.taken or self._clear_suspect(text)):
                    self._uncount(text)
                    self.finish(text)

    def retries(self) -> list[list[QueuedText]]:
        """The batches that are to be sent again."""
        return [*map(list, self._retries), *([text] for text in self._suspects)]

    def finish(self, text: QueuedText) -> None:
        """The text has its vector or has failed: a later request for the same is a new entry."""
        if self._known.get(text.ids) is text:
            del self._known[text.ids]
        text.taken = True

    def requeue(self, groups: Sequence[Sequence[QueuedText]]) -> None:
        """Add the texts of a failed batch again: each group becomes its own batch, at most every second one."""
        for group in groups:
            for text in group:
                self.texts += 1
                self.tokens += text.tokens
            if group[0].quiet_s is None:
                self._retries.append(list(group))
            else:
                self._suspect(group)

    def retry_after(self, text: QueuedText, now: float) -> None:
        """Try the exclusive texts of the same requests after this one: they are longer prefixes of one document."""
        others = [
            other for request, _ in text.waiters for other in request.texts if other.exclusive and not other.taken
        ]
        for other in others:
            other.take(now)
            other.quiet_s = text.quiet_s
        self._suspect(others)

    def next_suspect_in_s(self, lived_s: float) -> float | None:
        """Seconds until the engine has lived long enough for the next suspect; None without suspects."""
        return max(0.0, min(text.quiet_s or 0.0 for text in self._suspects) - lived_s) if self._suspects else None

    def next_batch(
        self,
        now: float,
        *,
        interactive_lately: bool = False,
        speed: float = 0.0,
        fastest: float = 0.0,
        lived_s: float = math.inf,
    ) -> list[QueuedText]:
        """Compose the next batch: at most `slots` texts and `batch_tokens` tokens, never empty while requests wait.

        `interactive_lately`: an interactive request was seen recently, so a batch with bulk is kept small. `speed`, in
        tokens per second, if known: no batch is to take much longer than BATCH_S. A request that cannot be done by its
        deadline, not even at `fastest` tokens per second, fails instead. Suspects that need the engine to have lived
        longer than `lived_s` are left out.
        """
        self._retry_next = not self._retry_next
        expired = partial(_expired, now, fastest)
        target = max(self._least_tokens, int(speed * BATCH_S)) if speed else self._batch_tokens
        most = min(target, self._batch_tokens)
        batch = self._next_retry(lived_s) if self._retry_next else []
        batch = batch or self._fill(expired, now, most, interactive_lately=interactive_lately)
        batch = batch or self._next_retry(lived_s)
        for text in batch:
            self._uncount(text)
        return batch

    def _next_retry(self, lived_s: float) -> list[QueuedText]:
        """The next batch to send again, without the texts that no request waits for any more."""
        while group := self._pop_retry(lived_s):
            for text in group:
                if not text.waiters:
                    self._uncount(text)
                    self.finish(text)
            if kept := [text for text in group if text.waiters]:
                return kept
        return []

    def _pop_retry(self, lived_s: float) -> list[QueuedText]:
        if self._retries:
            return self._retries.popleft()
        for text in self._suspects:
            if (text.quiet_s or 0.0) <= lived_s:
                self._suspects.remove(text)
                return [text]
        return []

    def _suspect(self, texts: Iterable[QueuedText]) -> None:
        for text in texts:
            text.taken = True
            self._suspects.append(text)

    def _clear_suspect(self, text: QueuedText) -> bool:
        """Remove it from the suspects; False if it is not one of them."""
        found = text.quiet_s is not None and text in self._suspects
        if found:
            self._suspects.remove(text)
        return found

    def _fill(self, expired: Expired, now: float, most: int, *, interactive_lately: bool) -> list[QueuedText]:
        """Fill the batch in three passes: bulk up to its deficit, then interactive, then bulk with the room left."""
        first_bulk, first_interactive = self._bulk.first(expired), self._interactive.first(expired)
        if first_bulk is None:
            self._bulk_deficit = 0.0
        share = _bulk_share(now - first_bulk.since) if first_bulk else 0.0
        deficit = min(int(self._bulk_deficit), most)
        owed = self._bulk.fill(_budget([], self._small_texts, deficit), expired, now) if deficit > 0 else []
        interactive = self._interactive.fill(_budget(owed, self._slots, most), expired, now)
        limit = min(most, self._small_tokens) if interactive_lately or first_interactive is not None else most
        if interactive:  # they wait for the rest of their own batch, too
            limit //= 2
        more = self._bulk.fill(_budget([*owed, *interactive], self._slots, limit), expired, now)
        self._bulk_deficit += _tokens(interactive) * share / (1 - share) - _tokens(owed)
        # Room that interactive did not use reduces the deficit, but never below zero.
        self._bulk_deficit = min(most, max(min(self._bulk_deficit, 0.0), self._bulk_deficit - _tokens(more)))
        return [*owed, *interactive, *more]

    def _uncount(self, text: QueuedText) -> None:
        self.texts -= 1
        self.tokens -= text.tokens


def _budget(batch: Sequence[QueuedText], texts: int, tokens: int) -> BatchBudget:
    """What may be added to the batch if it may have that many texts and tokens."""
    left = 0 if any(text.exclusive for text in batch) else texts - len(batch)
    return BatchBudget(left, tokens - _tokens(batch), empty=not batch)


def _tokens(texts: Sequence[QueuedText]) -> int:
    return sum(text.tokens for text in texts)


def _bulk_share(waited_s: float) -> float:
    """Ageing: the longer the next bulk request has waited without progress, the larger bulk's share of the tokens."""
    return min(MAX_BULK_SHARE, MIN_BULK_SHARE + (MAX_BULK_SHARE - MIN_BULK_SHARE) * waited_s / AGEING_S)


def _expired(now: float, fastest: float, request: QueuedRequest) -> bool:
    """Whether it cannot be done by its deadline; it has failed then."""
    if now + (request.tokens / fastest if fastest else 0.0) < request.caller.deadline:
        return False
    request.fail(DeadlineExceeded("it cannot be done before its deadline: send less at a time", retry_after_s=5))
    return True
