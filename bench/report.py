"""`python -m bench.report`: results.json as a table for people (RESULTS.md) and as a picture (results.svg)."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypedDict

from bench import rows

FOLDER = Path(__file__).parent
QUIET_PERCENT = 15
HEAD = f"""# Results

Written by `python -m bench.report` from `results.json`, which `python -m bench MEASURE …` fills. Each measure asks its
contenders in turn, on one machine, and gives medians and ratios; the models have random weights and the shape that is
named. "busy" is how much of all cores others used when the measure began. Above {QUIET_PERCENT} % a verdict is in
brackets: the ratios then say more about who gets a core than about who is quick; processor time per token can
be believed.
"""


class _Row(TypedDict):
    measure: str
    goal: str
    seen: str
    met: bool | None


class _Found(TypedDict):
    model: str
    rows: list[_Row]
    figures: dict[str, dict[str, float]]
    notes: list[str]


class _Kept(TypedDict):
    circumstances: dict[str, str]
    found: _Found


def main() -> None:
    """Write both files beside the results."""
    kept: Mapping[str, _Kept] = rows.load()  # type: ignore[assignment] # written by rows.save
    (FOLDER / "RESULTS.md").write_text("\n".join(_lines(kept)) + "\n", encoding="utf-8")
    _plot(kept, FOLDER / "results.svg")


def _lines(kept: Mapping[str, _Kept]) -> Iterator[str]:
    yield HEAD
    yield "| measure | goal | seen | met | busy, % | command |"
    yield "|---|---|---|---|---|---|"
    for one in kept.values():
        told = one["circumstances"]
        for row in one["found"]["rows"]:
            met = {True: "yes", False: "no", None: ""}[row["met"]]
            if met and float(told["busy"]) > QUIET_PERCENT:
                met = f"({met})"
            yield f"| {row['measure']} | {row['goal']} | {row['seen']} | {met} | {told['busy']} | `{told['command']}` |"
    yield "\n![the same as bars](results.svg)\n\n## The figures behind them"
    for name, one in kept.items():
        told = one["circumstances"]
        yield f"\n**{name}**: {one['found']['model']}. {told['machine']}, {told['busy']} % busy, {told['date']}.\n"
        yield from _figures(one["found"]["figures"])
        yield from (f"\n{note}" for note in one["found"]["notes"])


def _figures(figures: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    names = list(dict.fromkeys(name for one in figures.values() for name in one))
    yield f"| | {' | '.join(names)} |"
    yield "|---" * (len(names) + 1) + "|"
    for contender, one in figures.items():
        yield f"| {contender} | {' | '.join(f'{one[name]:.5g}' if name in one else '' for name in names)} |"


def _plot(kept: Mapping[str, _Kept], path: Path) -> None:
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
