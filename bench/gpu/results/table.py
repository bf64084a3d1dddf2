"""The results of all cards: kept as JSON, shown as a page. Pure, but for `read`."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import orjson
from pydantic import TypeAdapter

from bench.gpu.results.found import Result
from bench.gpu.results.goals import GOALS, NOT_MEASURED, GoalVerdict

RESULT_LIST = TypeAdapter(list[Result])
HEAD = """\
# Results on GPUs

Written by `python -m bench.gpu.results` from `results.json`; [README.md](README.md) says how to measure a card. The
figures without a goal are listed below the table. The models have random weights.
"""


class RehearsalError(Exception):
    """A rehearsal's result was given: it says nothing about a GPU."""


def read(path: Path) -> list[Result]:
    """The results of a file; none if there is no such file."""
    return RESULT_LIST.validate_json(path.read_bytes()) if path.exists() else []


def written(results: Sequence[Result]) -> bytes:
    """The results as they are kept."""
    return orjson.dumps([one.model_dump() for one in results], option=orjson.OPT_INDENT_2) + b"\n"


def merged_results(before: Sequence[Result], new: Sequence[Result]) -> list[Result]:
    """All results, where a new one replaces the earlier one of the same card and phase. Raises RehearsalError."""
    if rehearsed := [one.phase for one in new if one.rehearsal]:
        raise RehearsalError(f"{', '.join(rehearsed)}: a rehearsal on a CPU is no result")
    found = {(one.card, one.phase): one for one in (*before, *new)}
    return [found[key] for key in sorted(found)]


def results_page(results: Sequence[Result]) -> str:
    """RESULTS.md: the goals by card, and each card's other figures."""
    return "\n".join([HEAD, *_goals(results), "", *_figures(results)]).rstrip() + "\n"


def _goals(results: Sequence[Result]) -> Iterator[str]:
    cards = sorted({one.card for one in results})
    yield f"| phase | figure | goal | {' | '.join(cards or ['no card yet'])} |"
    yield "|---" * (3 + max(1, len(cards))) + "|"
    by_key = {(one.card, one.phase): one for one in results}
    for goal in GOALS:
        seen = [
            by_key[card, goal.phase].figures.get(goal.figure) if (card, goal.phase) in by_key else None
            for card in cards
        ]
        cells = [_cell(GoalVerdict(goal, one)) for one in seen] or [NOT_MEASURED]
        yield f"| {goal.phase} | {goal.figure} | {goal.wanted} | {' | '.join(cells)} |"


def _cell(one: GoalVerdict) -> str:
    return NOT_MEASURED if one.seen is None else f"{one.seen:.6g}{'' if one.goal.met(one.seen) else ' **missed**'}"


def _figures(results: Sequence[Result]) -> Iterator[str]:
    judged = {(goal.phase, goal.figure) for goal in GOALS}
    for one in results:
        yield f"## {one.card}: {one.phase}, {one.date}"
        yield ""
        yield from (f"* {name}: {value:.6g}" for name, value in one.figures.items() if (one.phase, name) not in judged)
        yield from (f"* {' '.join(note.split())}" for note in one.notes)
        yield ""
