"""Which text is to blame when an engine ends: one that ends it repeatedly on its own, not one that was only there."""

import itertools
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from proxy.scheduling.batch_queue import BatchQueue
from proxy.scheduling.entries import QueuedRequest, QueuedText, TokenizedText
from proxy.scheduling.quarantine import FIRST_S, KEPT, LONGEST_QUARANTINE_S, LONGEST_QUIET_S, QUIET_S, Suspects, Verdict
from tests.support.engines.queued_requests import join, owners, queue

BATCH_S, RESTART_S = 0.1, 1.0

# What happened, in order: "x": the engine ended with x alone; "xyz": with these; "+x": x was right; "x?": its row was
# not finite; "-": it ended without a text. And what becomes of x in the end.
HISTORIES = [
    ("x", Verdict.RETRY),
    ("x x", Verdict.POISON),
    ("xyz x", Verdict.RETRY),
    ("xyz x x", Verdict.POISON),
    ("x - x", Verdict.RETRY),
    ("x yz x", Verdict.RETRY),
    ("x yz x x", Verdict.POISON),
    ("x y x", Verdict.POISON),  # two that are poison do not clear each other
    ("x +x x", Verdict.RETRY),
    ("+x x x", Verdict.RETRY),
    ("+x x x x", Verdict.POISON),
    ("x?", Verdict.RETRY),
    ("x? x?", Verdict.POISON),
    ("x? x", Verdict.POISON),
    ("x - x - x - x", Verdict.RETRY),
    ("x - x - x - x - x", Verdict.GIVE_UP),
    ("x - x - x - x - x - x", Verdict.GIVE_UP),
    ("x - x - x - x - x x", Verdict.POISON),
    ("x - x - x - x +x x", Verdict.RETRY),
]


@pytest.mark.parametrize(("history", "expected"), HISTORIES)
def test_what_becomes_of_a_text(history: str, expected: Verdict) -> None:
    suspects, last = Suspects(), None
    for event in history.split():
        if event == "-":
            suspects.ended_without()
        elif event[0] == "+":
            suspects.was_right(event[1:].encode())
        elif event[-1] == "?":
            last = suspects.not_finite(event[:-1].encode(), 0.0)
        else:
            verdicts = suspects.ended_with([letter.encode() for letter in event], BATCH_S, 0.0)
            last = verdicts[event.index("x")] if "x" in event else last
    assert last is expected


def test_the_engine_has_to_live_without_a_suspect_for_ten_times_its_batch() -> None:
    suspects = Suspects()
    assert suspects.quiet_before(b"short", 0.0) is None
    for ids, batch_s, quiet_s in [(b"short", 0.01, QUIET_S), (b"long", 1.0, 10.0), (b"hung", 600.0, LONGEST_QUIET_S)]:
        suspects.ended_with([ids], batch_s, 0.0)
        assert suspects.quiet_before(ids, 0.0) == quiet_s
    suspects.ended_with([b"one", b"of", b"many"], BATCH_S, 0.0)
    assert suspects.quiet_before(b"of", 0.0) == 0.0, "alone, at once"


@pytest.mark.parametrize(("batch_s", "ends"), [(0.01, 2), (0.3, 2), (0.5, 3), (3.0, 3), (8.0, 4), (600.0, 4)])
def test_the_longer_a_batch_the_more_ends_make_its_text_poison(batch_s: float, ends: int) -> None:
    suspects = Suspects()
    found = [suspects.ended_with([b"x"], batch_s, 0.0)[0] for _ in range(ends)]
    assert found == [*[Verdict.RETRY] * (ends - 1), Verdict.POISON]


@pytest.mark.parametrize(("batch_s", "every_s"), [(1.0, 20.0), (8.0, 40.0), (20.0, 60.0)])
def test_a_long_text_is_not_poison_because_kills_meet_it_often(batch_s: float, every_s: float) -> None:
    generator, condemned = random.Random(4), 0
    for _ in range(1000):
        suspects = Suspects()
        verdict = suspects.ended_with([b"x"], batch_s, 0.0)[0]
        while verdict is Verdict.RETRY:
            lived_s, quiet_s = generator.expovariate(1 / every_s), suspects.quiet_before(b"x", 0.0) or 0.0
            if lived_s > quiet_s + batch_s:
                break  # it was computed
            if lived_s < quiet_s:
                suspects.ended_without()
            else:
                verdict = suspects.ended_with([b"x"], batch_s, 0.0)[0]
        condemned += verdict is Verdict.POISON
    assert condemned <= 10


def test_poison_is_refused_for_longer_each_time_and_has_one_try_between() -> None:
    suspects, now = Suspects(), 0.0
    suspects.ended_with([b"x"], BATCH_S, now)
    for sentence in range(8):
        assert suspects.ended_with([b"x"], BATCH_S, now) == [Verdict.POISON]
        until = now + min(LONGEST_QUARANTINE_S, FIRST_S * 2**sentence)
        assert suspects.quiet_before(b"x", until - 1) == math.inf
        assert suspects.quiet_before(b"x", until) == QUIET_S
        now = until
    suspects.was_right(b"x")
    assert not suspects


def test_memory_is_bounded_and_the_latest_stay() -> None:
    suspects = Suspects()
    for number in range(3 * KEPT):
        suspects.ended_with([b"%d" % number], BATCH_S, float(number))
    assert suspects.quiet_before(b"0", 0.0) is None
    assert suspects.quiet_before(b"%d" % (3 * KEPT - 1), 0.0) == QUIET_S
    suspects.ended_with([b"x"], BATCH_S, 1e9)
    assert suspects.quiet_before(b"%d" % (3 * KEPT - 1), 0.0) is None, "a day has passed"
    suspects.clear()
    assert not suspects


@dataclass
class World:
    """An engine, its queue and four clients that each wait for one answer at a time, in simulated time.

    `kill()` is after how many seconds of its life the engine is killed; the texts in `poison` end it by themselves.
    """

    kill: Callable[[], float]
    choose: Callable[[], int]
    poison: frozenset[int] = frozenset()
    now: float = 0.0
    ends: int = 0
    served: int = 0
    condemned: set[int] = field(default_factory=set)
    suspects: Suspects = field(default_factory=Suspects)
    waiting: BatchQueue = field(default_factory=queue)
    jobs: set[QueuedRequest] = field(default_factory=set)

    def run(self, seconds: float) -> "World":
        while self.now < seconds:
            opened, killed = self.now, self.now + self.kill()
            while self._live(opened, killed) and self.now < seconds:
                pass
            self.ends += 1
            self.now += RESTART_S
        return self

    def _live(self, opened: float, killed: float) -> bool:
        """One call, or a moment without; whether the engine lives."""
        while len(self.jobs) < 4:
            self._ask(b"%d" % self.choose())
        call = self.waiting.next_batch(self.now, lived_s=self.now - opened)
        alive = self.now + BATCH_S < killed and not self.poison & {int(text.ids) for text in call}
        self.now += BATCH_S
        if alive:
            for text in call:
                self.suspects.was_right(text.ids)
                self._answer(text)
            self.served += len(call)
        elif call:
            self._ended(call)
        else:
            self.suspects.ended_without()
        return alive

    def _ask(self, ids: bytes) -> None:
        quiet_s = self.suspects.quiet_before(ids, self.now)
        if quiet_s != math.inf:
            self.jobs.add(join(self.waiting, [TokenizedText(ids, 1 + int(ids) % 20, quiet_s=quiet_s)]))

    def _ended(self, call: list[QueuedText]) -> None:
        for text, verdict in zip(call, self.suspects.ended_with([t.ids for t in call], BATCH_S, self.now), strict=True):
            if verdict is Verdict.RETRY:
                text.quiet_s = self.suspects.quiet_before(text.ids, self.now)
                self.waiting.requeue([[text]])
            else:
                self._answer(text)
            if verdict is Verdict.POISON:
                self.condemned.add(int(text.ids))

    def _answer(self, text: QueuedText) -> None:
        self.waiting.finish(text)
        self.jobs.difference_update(owners([text]))


@pytest.mark.parametrize("every_s", [0.3, 1.0, 5.0])
def test_an_engine_that_is_killed_at_random_quarantines_next_to_nothing(every_s: float) -> None:
    generator = random.Random(1)
    world = World(lambda: generator.expovariate(1 / every_s), other_texts()).run(200)
    assert world.ends > 30
    assert len(world.condemned) <= 0.01 * world.ends


@pytest.mark.parametrize("lived_s", [0.0, 0.25, 1.0, QUIET_S - BATCH_S, QUIET_S + BATCH_S])
def test_an_engine_that_is_killed_soon_after_each_start_quarantines_nothing(lived_s: float) -> None:
    generator = random.Random(2)
    world = World(lambda: lived_s + generator.uniform(0, BATCH_S), other_texts()).run(150)
    assert world.ends > 10
    assert not world.condemned
    assert world.served > 10 or not lived_s


@pytest.mark.parametrize("texts", [1, 2, 5])
def test_poison_is_found_within_three_ends_each_and_the_others_are_served(texts: int) -> None:
    generator, others = random.Random(3), other_texts()
    world = World(
        lambda: math.inf,
        lambda: generator.randrange(texts) if generator.random() < 0.1 else others(),
        poison=frozenset(range(texts)),
    ).run(100)
    assert world.condemned == world.poison
    assert world.ends - 1 <= 3 * texts
    assert world.served > 1000


def other_texts() -> Callable[[], int]:
    """A new text each time."""
    numbers = itertools.count(100)
    return lambda: next(numbers)
