"""What a phase has found so far, written to a file with each figure."""

import datetime
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import orjson
from pydantic import BaseModel, Field


class Result(BaseModel):
    """One run of a phase: `figures` by name, in the order in which they were measured."""

    phase: str
    card: str
    rehearsal: bool
    date: str
    machine: str
    figures: dict[str, float] = Field(default_factory=dict)
    notes: list[str] = Field(default_factory=list)


@dataclass(slots=True)
class Recorder:
    """Keeps a result's file up to date, and prints each figure as it is found. `failures` counts failed parts."""

    result: Result
    path: Path
    failures: int = 0
    started: float = field(default_factory=time.monotonic)

    def set(self, name: str, value: float) -> None:
        """Add a figure, or replace it."""
        self.result.figures[name] = float(value)
        self._say(f"{name}: {value:.6g}")

    def note(self, text: str) -> None:
        """Add what no figure says."""
        self.result.notes.append(text)
        self._say(text)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """A part of the phase, whose failure is noted and does not end the others: time on a card is rare."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 # whatever it is, the other parts can be measured
            self.failures += 1
            traceback.print_exc()
            self.note(f"failed: {name}: {error!r}")

    def _say(self, text: str) -> None:
        seconds = time.monotonic() - self.started
        print(f"{self.result.phase} {seconds:5.0f} s  {text}", flush=True)
        self.path.write_bytes(orjson.dumps(self.result.model_dump(), option=orjson.OPT_INDENT_2) + b"\n")


def begin(phase: str, *, card: str, rehearsal: bool, machine: str, out: Path) -> Recorder:
    """Nothing found yet; `out` is the folder of the file."""
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    result = Result(phase=phase, card=card, rehearsal=rehearsal, date=date, machine=machine)
    return Recorder(result, out / f"{phase}.json")
