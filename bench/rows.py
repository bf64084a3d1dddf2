"""The outcome of a measure, and `results.json`: each measure's last run, and what earlier runs saw."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NotRequired, TypedDict

import orjson

RESULTS = Path(__file__).parent / "results.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table of goals; `met` None: there is no goal, or it could not be judged."""

    measure: str
    goal: str
    seen: str
    met: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The outcome of one measure: rows, the figures behind them by contender, and notes."""

    model: str
    rows: Sequence[Row]
    figures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    notes: Sequence[str] = ()


class Circumstances(TypedDict):
    """Of one run. `busy`: per cent of all cores used by others when it began; older runs have the load instead."""

    date: str
    machine: str
    command: str
    busy: NotRequired[str]
    load: NotRequired[str]


class Earlier(TypedDict):
    """A run that a later one replaced."""

    date: str
    circumstances: str
    seen: list[str]


class Kept(TypedDict):
    circumstances: Circumstances
    found: "KeptFound"
    earlier: list[Earlier]


class KeptRow(TypedDict):
    measure: str
    goal: str
    seen: str
    met: bool | None


class KeptFound(TypedDict):
    model: str
    rows: list[KeptRow]
    figures: dict[str, dict[str, float]]
    notes: list[str]


def save_results(measure: str, found: Found, circumstances: Circumstances) -> None:
    """Replace the measure's last run, but keep what that one saw: nobody may choose among runs."""
    kept: dict[str, object] = {**load_results()}
    earlier: list[Earlier] = []
    if before := load_results().get(measure):
        run, seen = before["circumstances"], [row["seen"] for row in before["found"]["rows"]]
        earlier = [*before["earlier"], {"date": run["date"], "circumstances": others_of(run), "seen": seen}]
    kept[measure] = {"circumstances": circumstances, "found": found, "earlier": earlier}
    RESULTS.write_bytes(orjson.dumps(kept, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n")


def others_of(facts: Circumstances) -> str:
    """The other load on the machine, as recorded."""
    return f"busy {facts['busy']} %" if "busy" in facts else f"load {facts.get('load', 'unknown')}"


def load_results() -> dict[str, Kept]:
    """Every measure's last run."""
    kept: dict[str, Kept] = orjson.loads(RESULTS.read_bytes()) if RESULTS.exists() else {}
    return kept


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Median, least and greatest of the ratios of paired runs."""
    found = [a / b for a, b in zip(ours, theirs, strict=True)]
    return statistics.median(found), min(found), max(found)
