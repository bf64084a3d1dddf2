"""What a user sees of a job while it runs: a bar, or a line of JSON per second for programs."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, TaskProgressColumn, TextColumn

from launcher.corpus.endpoint import EmbeddingEndpoint
from launcher.corpus.job import CorpusJob
from launcher.printable import Terminal, json_line
from proxy.bulk.concurrency import CallLimit
from proxy.bulk.runner import RunCounts

_EVERY_S = 1.0
_LINE_EVERY_S = 30.0  # where there is neither a terminal nor --json


@dataclass(slots=True, kw_only=True)
class Figures:
    """The figures of a run. Rates are over the whole run."""

    job: CorpusJob
    endpoint: EmbeddingEndpoint
    limit: CallLimit
    counts: RunCounts
    started: float = field(default_factory=time.monotonic)

    def facts(self) -> Mapping[str, float | int | str | None]:
        seconds = time.monotonic() - self.started
        left = self.job.plan.rows - self.job.rows_done
        texts_per_s = self.endpoint.texts / max(seconds, 1e-3)
        return {
            "rows": self.job.plan.rows,
            "rows_done": self.job.rows_done,
            "error_rows": self.job.error_rows,
            "seconds": round(seconds, 1),
            "tokens": self.endpoint.tokens,
            "texts_per_s": round(texts_per_s, 1),
            "tokens_per_s": round(self.endpoint.tokens / max(seconds, 1e-3), 1),
            "eta_s": round(left / texts_per_s) if texts_per_s else None,
            "in_flight": self.limit.in_flight,
            "limit": self.limit.limit,
            "busy": self.counts.busy,
            "failed": self.counts.failed,
            "trouble": self.counts.last_trouble,
        }

    def summary(self) -> str:
        """How long the run took, and how fast it was."""
        facts = self.facts()
        seconds = _duration(float(facts["seconds"] or 0))
        return f"{seconds}, {facts['texts_per_s']:.0f} texts/s, {facts['tokens_per_s']:.0f} tokens/s"


@dataclass(slots=True)
class JobDisplay:
    """`as_json`: a line per second on standard output."""

    console: Terminal
    as_json: bool = False

    @asynccontextmanager
    async def live(self, figures: Figures) -> AsyncIterator[None]:
        """Show the figures for the block."""
        show = asyncio.create_task(self._bar(figures) if self._has_bar else self._lines(figures))
        try:
            yield
        finally:
            show.cancel()
            with suppress(asyncio.CancelledError):
                await show
            if self.as_json:
                _write(figures)

    @property
    def _has_bar(self) -> bool:
        return self.console.is_terminal and not self.as_json

    async def _bar(self, figures: Figures) -> None:
        with Progress(*_columns(), console=self.console, transient=True) as progress:
            task = progress.add_task("", total=figures.job.plan.rows, figures="")
            while True:
                facts = figures.facts()
                progress.update(task, completed=figures.job.rows_done, figures=_words(facts))
                await asyncio.sleep(_EVERY_S)

    async def _lines(self, figures: Figures) -> None:
        while True:
            await asyncio.sleep(_EVERY_S if self.as_json else _LINE_EVERY_S)
            if self.as_json:
                _write(figures)
            else:
                facts = figures.facts()
                self.console.say(f"{facts['rows_done']} of {facts['rows']} rows, {_words(facts)}")


def _columns() -> tuple[ProgressColumn, ...]:
    words = TextColumn("{task.completed:.0f}/{task.total:.0f} rows  {task.fields[figures]}", markup=False)
    return SpinnerColumn(), BarColumn(bar_width=20), TaskProgressColumn(), words


def _words(facts: Mapping[str, float | int | str | None]) -> str:
    eta = facts["eta_s"]
    left = "" if eta is None else f", {_duration(float(eta))} left"
    trouble = f", {facts['busy']} times busy, {facts['failed']} failed" if facts["busy"] or facts["failed"] else ""
    rates = f"{facts['texts_per_s']:.0f} texts/s, {facts['tokens_per_s']:.0f} tokens/s"
    return f"{rates}{left}, {facts['in_flight']} in flight, {facts['error_rows']} errors{trouble}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def _write(figures: Figures) -> None:
    sys.stdout.buffer.write(json_line(figures.facts()))
    sys.stdout.buffer.flush()
