"""`trillama tune`: finds the fastest settings for this machine, one engine at a time, on the same texts.

The search starts with the present settings and follows one axis after the other (coordinate descent): all combinations
would take an hour.
"""

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from launcher.arrays import F32
from launcher.errors import ChildError
from launcher.measure.compare import batches
from launcher.measure.loadgen import LENGTHS, lengths, text
from launcher.settings.config import FlashAttention
from launcher.supervision.standalone import Standalone, StandaloneEmbedder, standalone

_SLOTS = (1, 4, 8, 16, 32)
_BATCHES = (512, 1024, 2048)
_SAME = 0.999  # other settings use other kernels, which may change a text's vector by this much
GAIN = 1.03  # a smaller one is noise
LOAD_PART = 0.5  # of the time, for starting engines and warming them up
MOST_TEXTS, MOST_S = 128, 3.0  # of one kind for one setting
WARM_TOKENS = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One way to start the engine. A batch has at most `slots` texts; `threads` None is the engine's choice."""

    slots: int
    batch_tokens: int
    threads: int | None
    flash_attention: FlashAttention


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The outcome of a setting: tokens per second for each kind of text that fits, or why it was dropped."""

    setting: Setting
    tokens_per_s: Mapping[str, float]
    worst_cosine: float = 1.0
    dropped: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneOutcome:
    """All measurements in order, the first of the present settings. `left_out`: there was no time for these."""

    measured: tuple[Measured, ...]
    best: Measured
    left_out: tuple[Setting, ...]


MeasureSetting = Callable[[Setting], Awaitable[Measured]]


def gain(new: Measured, old: Measured) -> float:
    """Speed-up: the geometric mean over the kinds of text that both have. 0 for a dropped setting."""
    both = [kind for kind in new.tokens_per_s if kind in old.tokens_per_s]
    if new.dropped or not both:
        return 0.0
    return float(np.exp(np.mean([np.log(new.tokens_per_s[kind] / old.tokens_per_s[kind]) for kind in both])))


def axes(first: Setting, *, physical: int, usable: int) -> tuple[tuple[Setting, ...], ...]:
    """The settings to try beside `first` on each axis: slots, flash attention, threads."""
    flash: tuple[FlashAttention, ...] = ("auto", "on", "off")
    threads = (physical, usable) if physical != usable else ()  # the engine itself chooses the physical ones
    found = (
        [replace(first, slots=slots) for slots in _SLOTS],
        [replace(first, flash_attention=one) for one in flash],
        [replace(first, threads=count) for count in threads],
    )
    return tuple(tuple(one for one in axis if one != first) for axis in found)


def moved(best: Setting, first: Setting, tried: Setting) -> Setting:
    """`best`, with what differs between `tried` and `first` taken from `tried`."""
    changes = {name: getattr(tried, name) for name in Setting.__slots__ if getattr(tried, name) != getattr(first, name)}
    return replace(best, **changes)


async def search(
    first: Setting, axes: Sequence[Sequence[Setting]], measure: MeasureSetting, until_s: float
) -> TuneOutcome:
    """Try each axis from the best setting so far. A better one must still be better when that best is measured again.

    `until_s`, a time of time.monotonic(), is when no further measurement is begun; the first always is.
    Raises ChildError if the first setting does not work.
    """
    best = await measure(first)
    if best.dropped:
        raise ChildError(best.dropped)
    measured, left_out = [best], []
    for axis in axes:
        before = best
        for tried in axis:
            setting = moved(before.setting, first, tried)
            if time.monotonic() >= until_s:
                left_out.append(setting)
                continue
            measured.append(found := await measure(setting))
            if gain(found, best) > GAIN:
                measured.append(again := await measure(best.setting))
                best = found if gain(found, again) > GAIN else again
    return TuneOutcome(measured=tuple(measured), best=best, left_out=tuple(left_out))


class Bench:
    """Measures settings on the same texts, whose number depends on the speed of the first setting."""

    def __init__(self, run: Standalone, model: Path, *, seed: int, kind_s: float) -> None:
        self._run = run
        self._model = model
        self._seed = seed
        self._kind_s = min(kind_s, MOST_S)
        self._texts: dict[str, list[list[int]]] = {}
        self._first: dict[str, F32] = {}

    async def measure(self, setting: Setting) -> Measured:
        """Start an engine with that setting and time each kind of text. A failing or wrong one is dropped."""
        run = replace(
            self._run,
            slots=setting.slots,
            batch_tokens=setting.batch_tokens,
            threads=setting.threads,
            flash_attention=setting.flash_attention,
        )
        try:
            async with standalone(run, "tune", self._model) as embedder:
                return await self._timed(embedder, setting)
        except ChildError as error:
            return Measured(setting=setting, tokens_per_s={}, dropped=str(error))

    async def _timed(self, embedder: StandaloneEmbedder, setting: Setting) -> Measured:
        speed = await self._warm(embedder, setting)
        if not self._texts:
            self._texts = await self._made(embedder, speed)
        speeds, worst = {}, 1.0
        for kind, ids in self._texts.items():
            if max(map(len, ids)) > setting.batch_tokens:
                continue
            started_s = time.perf_counter()
            groups = batches([len(one) for one in ids], slots=setting.slots, tokens=setting.batch_tokens)
            rows = [await embedder.vectors([ids[number] for number in group]) for group in groups]
            speeds[kind] = sum(map(len, ids)) / (time.perf_counter() - started_s)
            vectors: F32 = np.concatenate(rows)
            worst = min(worst, _least_cosine(vectors, self._first.setdefault(kind, vectors)))
        if worst < _SAME:
            reason = f"its vectors are not those of the first setting (cosine {worst:.4f})"
            return Measured(setting=setting, tokens_per_s=speeds, worst_cosine=worst, dropped=reason)
        return Measured(setting=setting, tokens_per_s=speeds, worst_cosine=worst)

    async def _warm(self, embedder: StandaloneEmbedder, setting: Setting) -> float:
        """Tokens per second of the second batch: the first one brings the weights into memory."""
        ids = (await embedder.token_ids(text(np.random.default_rng(0), WARM_TOKENS)))[:WARM_TOKENS]
        batch = [ids] * max(1, min(setting.slots, setting.batch_tokens // len(ids)))
        await embedder.vectors([ids])
        started_s = time.perf_counter()
        await embedder.vectors(batch)
        return sum(map(len, batch)) / (time.perf_counter() - started_s)

    async def _made(self, embedder: StandaloneEmbedder, speed: float) -> dict[str, list[list[int]]]:
        """Token ids of each kind: as many as the first setting computes in the time for a kind, at least one text."""
        random = np.random.default_rng(self._seed)
        found: dict[str, list[list[int]]] = {}
        for kind in LENGTHS:
            sizes = [min(size, self._run.batch_tokens) for size in lengths(random, kind, MOST_TEXTS)]
            count = int(np.searchsorted(np.cumsum(sizes), speed * self._kind_s))
            # A word is at least a token, so each text is cut to the size that was drawn.
            found[kind] = [(await embedder.token_ids(text(random, size)))[:size] for size in sizes[: max(1, count)]]
        return found


def _least_cosine(vectors: F32, others: F32) -> float:
    return float(np.einsum("ij,ij->i", vectors, others).min())


def kind_seconds(minutes: float, settings: int) -> float:
    """Seconds for one kind of text at one setting, so that all settings can be tried within `minutes`."""
    return minutes * 60 * (1 - LOAD_PART) / (settings * len(LENGTHS))


def smaller_batches(best: Setting) -> Iterable[Setting]:
    """The same with a smaller physical batch. It serves only shorter texts, so it is advice and no profile."""
    return [replace(best, batch_tokens=size) for size in _BATCHES if size < best.batch_tokens]
