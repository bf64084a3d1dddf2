"""What a user sees of a job while it runs: a bar, or a line of JSON per second for programs."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import BinaryIO

from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, TaskProgressColumn, TextColumn

from launcher.printable import Terminal, json_line

_EVERY_S = 1.0
_BAR_WIDTH = 28  # of the spinner, the bar, the percentage and the spaces between
_LINE_EVERY_S = 30.0  # where there is neither a terminal nor --json


@dataclass(frozen=True, slots=True, kw_only=True)
class JobProgress:
    """How far a job is: rows that are done, in this run and before; and what this run has sent.

    `texts` and `tokens` were computed; `limit` is the most calls in flight now; `busy` counts answers of "later",
    `failed` calls that were tried again. `rows_in_work`: rows of the parts in work whose vectors are not here yet, if
    known. `hosts` that work on it, where it is spread over a cluster.
    """

    rows_done: int
    error_rows: int
    texts: int = 0
    tokens: int = 0
    in_flight: int = 0
    limit: int = 0
    busy: int = 0
    failed: int = 0
    trouble: str = ""
    rows_in_work: int | None = None
    hosts: int | None = None


@dataclass(slots=True, kw_only=True)
class Figures:
    """The figures of a run. Rates are over the whole run."""

    rows: int
    look: Callable[[], JobProgress]
    started: float = field(default_factory=time.monotonic)

    def facts(self) -> Mapping[str, float | int | str | None]:
        now, seconds = self.look(), time.monotonic() - self.started
        texts_per_s = now.texts / max(seconds, 1e-3)
        return {
            "rows": self.rows,
            "rows_done": now.rows_done,
            "error_rows": now.error_rows,
            "seconds": round(seconds, 1),
            "tokens": now.tokens,
            "texts_per_s": round(texts_per_s, 1),
            "tokens_per_s": round(now.tokens / max(seconds, 1e-3), 1),
            "eta_s": round((self.rows - now.rows_done) / texts_per_s) if texts_per_s else None,
            "in_flight": now.in_flight,
            "limit": now.limit,
            "busy": now.busy,
            "failed": now.failed,
            "trouble": now.trouble,
            **({} if now.hosts is None else {"hosts": now.hosts}),
        }

    def time_to_stop(self) -> str | None:
        """How long the parts in work still take, in words; None if that is not known yet."""
        now, texts_per_s = self.look(), float(self.facts()["texts_per_s"] or 0)
        if now.rows_in_work is None or not texts_per_s:
            return None
        return _duration(now.rows_in_work / texts_per_s)

    def summary(self) -> str:
        """How long the run took, and how fast it was."""
        facts = self.facts()
        if not self.look().texts:  # all was done before, or is an error
            return "nothing was computed"
        seconds = _duration(float(facts["seconds"] or 0))
        return f"{seconds}, {facts['texts_per_s']:.0f} texts/s, {facts['tokens_per_s']:.0f} tokens/s"


@dataclass(slots=True)
class JobDisplay:
    """`as_json`: a line per second to `out`."""

    console: Terminal
    as_json: bool = False
    out: BinaryIO = field(default_factory=lambda: sys.stdout.buffer)
    _figures: Figures | None = field(default=None, init=False)

    @asynccontextmanager
    async def live(self, figures: Figures) -> AsyncIterator[None]:
        """Show the figures for the block."""
        self._figures = figures
        show = asyncio.create_task(self._bar(figures) if self._has_bar else self._lines(figures))
        try:
            yield
        finally:
            show.cancel()
            with suppress(asyncio.CancelledError):
                await show
            if self.as_json:
                self._write(figures)

    def say_stopping(self) -> None:
        """Say what the first Ctrl-C does, and for how long."""
        time_left = self._figures and self._figures.time_to_stop()
        about = f", in about {time_left}" if time_left else ""
        self.console.say(f"stopping: the parts in work are finished first{about}; a second Ctrl-C ends it at once")

    @property
    def _has_bar(self) -> bool:
        return self.console.is_terminal and not self.as_json

    async def _bar(self, figures: Figures) -> None:
        with Progress(*_columns(), console=self.console, transient=True) as progress:
            task = progress.add_task("", total=figures.rows, figures="")
            while True:
                facts = figures.facts()
                figures_shown = _fitting(facts, self.console.width - _BAR_WIDTH)
                progress.update(task, completed=float(facts["rows_done"] or 0), figures=figures_shown)
                await asyncio.sleep(_EVERY_S)

    async def _lines(self, figures: Figures) -> None:
        while True:
            await asyncio.sleep(_EVERY_S if self.as_json else _LINE_EVERY_S)
            if self.as_json:
                self._write(figures)
            else:
                facts = figures.facts()
                self.console.say(", ".join(_words(facts)))

    def _write(self, figures: Figures) -> None:
        self.out.write(json_line(figures.facts()))
        self.out.flush()


def _columns() -> tuple[ProgressColumn, ...]:
    words = TextColumn("{task.fields[figures]}", markup=False)
    return SpinnerColumn(), BarColumn(bar_width=20), TaskProgressColumn(), words


def _fitting(facts: Mapping[str, float | int | str | None], width: int) -> str:
    """As many of the words as a line of that width takes, the most important first: a longer one hides the bar."""
    shown = ""
    for word in _words(facts):
        longer = f"{shown}, {word}" if shown else word
        if len(longer) > width:
            break
        shown = longer
    return shown


def _words(facts: Mapping[str, float | int | str | None]) -> Iterator[str]:
    """What is shown of a job, the most important first."""
    yield f"{facts['rows_done']} of {facts['rows']} rows"
    if facts["eta_s"] is not None:
        yield f"{_duration(float(facts['eta_s']))} left"
    yield f"{facts['error_rows']} errors"
    yield f"{facts['texts_per_s']:.0f} texts/s"
    if facts["busy"] or facts["failed"]:
        yield f"{facts['busy']} times busy, {facts['failed']} failed"
    yield f"{facts['tokens_per_s']:.0f} tokens/s"
    if "hosts" in facts:
        yield f"{facts['hosts']} hosts"
    yield f"{facts['in_flight']} in flight"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
