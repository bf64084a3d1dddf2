"""What a measure found, and how it is kept: `results.json` has the last run of each measure."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

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
    """All that one measure found: rows, the figures behind them by contender, and what else must be said."""

    model: str
    rows: Sequence[Row]
    figures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    notes: Sequence[str] = ()


def save(measure: str, found: Found, circumstances: Mapping[str, str]) -> None:
    """Keep it in place of the measure's run before."""
    kept = load()
    kept[measure] = {"circumstances": circumstances, "found": found}
    RESULTS.write_bytes(orjson.dumps(kept, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n")


def load() -> dict[str, object]:
    """Every measure's last run."""
    kept: dict[str, object] = orjson.loads(RESULTS.read_bytes()) if RESULTS.exists() else {}
    return kept


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Median, least and greatest of the ratios of paired runs."""
    found = [a / b for a, b in zip(ours, theirs, strict=True)]
    return statistics.median(found), min(found), max(found)
