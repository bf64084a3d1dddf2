"""`python -m bench.report`: results.json as a table (RESULTS.md) and as a picture (results.svg)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench import rows
from bench.__main__ import MEASURES
from bench.rows import Circumstances, Kept, others_of

FOLDER = Path(__file__).parent
QUIET_PERCENT = 15
_ABOUT = f"""
## How it was measured

Written by `python -m bench.report` from `results.json`, which `python -m bench MEASURE …` fills. Each measure asks its
contenders in turn, on one machine, and gives medians and ratios; the models have random weights and the shape that is
named. "others" is the other load on the machine when the measure began: per cent of all cores, or its load in older
runs. More than {QUIET_PERCENT} %, or a load above 1, puts a verdict in brackets: it does not count. Such ratios depend
on which program gets a core rather than on speed; processor time per token depends on that least. Earlier runs of a
measure are listed, whatever they saw. With `--stock` the others run stock llama.cpp, and trillama the engine that
`trillama engine build` makes, which leaves out unused logits.
"""
MISSED = """
## What was missed

Why, and what stands in the way of each: [NOTES.md](NOTES.md).
"""


@dataclass(frozen=True, slots=True)
class Goal:
    """A goal's line in the summary; `met` None: it could not be judged."""

    line: str
    met: bool | None


def main() -> None:
    """Write both files beside the results."""
    kept = rows.load_results()
    (FOLDER / "RESULTS.md").write_text("\n".join(_lines(kept)) + "\n", encoding="utf-8")
    _plot(kept, FOLDER / "results.svg")


def _lines(kept: Mapping[str, Kept]) -> Iterator[str]:
    yield from _summary(kept)
    yield _ABOUT
    yield "| measure | goal | seen | met | others | command |"
    yield "|---|---|---|---|---|---|"
    for one in kept.values():
        facts = one["circumstances"]
        for row in one["found"]["rows"]:
            met = {True: "yes", False: "no", None: ""}[row["met"]]
            if met and not _quiet(facts):
                met = f"({met})"
            cells = (row["measure"], row["goal"], row["seen"], met, others_of(facts), f"`{facts['command']}`")
            yield f"| {' | '.join(cells)} |"
    if missing := [name for name in MEASURES if name not in kept]:
        yield f"\nNo run is kept of: {', '.join(missing)}."
    yield "\n![the same as bars](results.svg)\n\n## The figures behind them"
    for name, one in kept.items():
        facts = one["circumstances"]
        yield f"\n**{name}**: {one['found']['model']}. {facts['machine']}, {others_of(facts)}, {facts['date']}.\n"
        yield from _figures(one["found"]["figures"])
        yield from (f"\n{note}" for note in one["found"]["notes"])
        for run in one["earlier"]:
            yield f"\nEarlier, {run['date']} ({run['circumstances']}): {'; '.join(run['seen']) or 'nothing to keep'}."


def _summary(kept: Mapping[str, Kept]) -> Iterator[str]:
    """The goals that were reached, and then, in a section of their own, those that were not or could not be judged."""
    goals = [goal for name, one in kept.items() for goal in _goals(name, one)]
    reached = [goal for goal in goals if goal.met]
    yield f"# Results\n\n{len(reached)} of {len(goals)} goals were reached; what was missed is below. {_where(kept)}\n"
    yield from (goal.line for goal in reached)
    yield MISSED
    yield from (goal.line for goal in goals if goal.met is False)
    if unjudged := [goal.line for goal in goals if goal.met is None]:
        yield "\nNot judged, as other programs computed meanwhile or a contender was not there:\n"
        yield from unjudged
    yield "\nNot measured at all: any GPU, and the real weights (no machine of this project could reach them)."


def _goals(name: str, one: Kept) -> Iterator[Goal]:
    """The goals of one measure; a row that begins with "…" is about the one above it."""
    about, quiet = "", _quiet(one["circumstances"])
    for row in one["found"]["rows"]:
        more = row["measure"].startswith("… ")
        about = about if more else row["measure"]
        if row["goal"]:
            measure = f"{about.partition(', vs ')[0]}, {row['measure'].removeprefix('… ')}" if more else about
            line = f"* {measure}: **{row['seen']}**; goal {row['goal']} [`{name}`]"
            yield Goal(line, row["met"] if quiet else None)


def _where(kept: Mapping[str, Kept]) -> str:
    """The machines of all runs, mostly one."""
    return f"Measured on: {'; '.join(dict.fromkeys(one['circumstances']['machine'] for one in kept.values()))}."


def _quiet(facts: Circumstances) -> bool:
    return float(facts["busy"]) <= QUIET_PERCENT if "busy" in facts else float(facts.get("load", "inf")) <= 1


def _figures(figures: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    names = list(dict.fromkeys(name for one in figures.values() for name in one))
    yield f"| | {' | '.join(names)} |"
    yield "|---" * (len(names) + 1) + "|"
    for contender, one in figures.items():
        yield f"| {contender} | {' | '.join(f'{one[name]:.5g}' if name in one else '' for name in names)} |"


def _plot(kept: Mapping[str, Kept], path: Path) -> None:
    """A panel for each measure that has these: the contenders' bars of one figure."""
    from matplotlib.figure import Figure  # noqa: PLC0415 # of the extra `bench`, only here

    panels = [
        (measure, figure, title)
        for measure, figure, title in (
            ("saturated", "tokens_per_s", "tokens/s, saturated, mixed lengths"),
            ("interactive", "p99_ms", "p99 of a query beside a re-index, ms"),
            ("waits", "max_ms", "longest wait at 4 x slots clients, ms"),
            ("gateways", "requests_per_s", "requests/s, one short text, 8 clients"),
        )
        if measure in kept
    ]
    drawing = Figure(figsize=(9, 1 + 1.7 * len(panels)), layout="constrained")
    for axes, (measure, figure, title) in zip(drawing.subplots(len(panels), squeeze=False)[:, 0], panels, strict=True):
        figures = kept[measure]["found"]["figures"]
        names = [name for name, one in figures.items() if figure in one][::-1]
        colours = ["#2a7f62" if name.startswith("trillama") else "#9aa5b1" for name in names]
        bars = axes.barh(names, [figures[name][figure] for name in names], color=colours)
        axes.bar_label(bars, fmt="%.0f", padding=3)
        axes.set_title(title, loc="left", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    drawing.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
