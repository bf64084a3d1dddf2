"""What the GPU bench makes of its figures: verdicts, the page, and what it keeps when a part fails."""

from collections.abc import Mapping
from pathlib import Path

import orjson
import pytest

from bench.gpu.results import table
from bench.gpu.results.found import Result, begin
from bench.gpu.results.goals import GOALS, NOT_MEASURED, GoalVerdict, GpuGoal, judged

PAGE = Path(table.__file__).parents[1] / "RESULTS.md"


def result(
    phase: str, card: str = "Card", figures: Mapping[str, float] | None = None, *, rehearsal: bool = False
) -> Result:
    return Result(phase=phase, card=card, rehearsal=rehearsal, date="d", machine="m", figures={**(figures or {})})


@pytest.mark.parametrize(
    ("least", "most", "seen", "words"),
    [
        (0.95, 1.05, 1.0, "yes"),
        (0.95, 1.05, 1.06, "NO"),
        (0.95, 1.05, 0.94, "NO"),
        (None, 0, 0.0, "yes"),
        (None, 0, 1.0, "NO"),
        (2, None, 2.0, "yes"),
        (2, None, None, NOT_MEASURED),
    ],
)
def test_a_goal_is_met_missed_or_not_measured(
    least: float | None, most: float | None, seen: float | None, words: str
) -> None:
    assert GoalVerdict(GpuGoal(phase="p", figure="f", least=least, most=most), seen).words == words


def test_each_goal_is_there_once_and_has_a_bound() -> None:
    keys = [(goal.phase, goal.figure) for goal in GOALS]
    assert len(keys) == len(set(keys))
    assert all(goal.wanted for goal in GOALS)


def test_the_verdicts_of_a_phase_have_the_numbers() -> None:
    text = judged(result("memory", "Card", {"memory of the plan, most": 1.07, "memory of the plan, least": 0.99}))
    assert "NO  memory of the plan, most: 1.07 (≤ 1.05)" in text
    assert "yes  memory of the plan, least: 0.99 (≥ 0.95)" in text
    assert f"{NOT_MEASURED}  three at once, F16: of the plan: - (≥ 0.95 and ≤ 1.05)" in text


def test_the_page_names_cards_and_says_what_was_not_measured() -> None:
    page = table.results_page([result("build", "A", {"built: seconds": 400, "packed: MiB": 30}), result("faults", "B")])
    assert "| phase | figure | goal | A | B |" in page
    assert f"| build | built: seconds | ≤ 540 | 400 | {NOT_MEASURED} |" in page
    assert "## A: build, d\n\n* packed: MiB: 30" in page


def test_a_new_result_replaces_that_of_the_same_card_and_phase_only() -> None:
    before = [result("build", "A", {"x": 1}), result("build", "B", {"x": 2}), result("truth", "A", {"x": 3})]
    found = table.merged_results(before, [result("build", "A", {"x": 4})])
    assert [(one.card, one.phase, one.figures["x"]) for one in found] == [
        ("A", "build", 4),
        ("A", "truth", 3),
        ("B", "build", 2),
    ]
    assert table.RESULT_LIST.validate_json(table.written(found)) == found


def test_a_rehearsal_is_no_result() -> None:
    with pytest.raises(table.RehearsalError, match="truth"):
        table.merged_results([], [result("truth", rehearsal=True)])


def test_the_kept_page_is_that_of_the_kept_results() -> None:
    assert PAGE.read_text(encoding="utf-8") == table.results_page(table.read(PAGE.with_name("results.json")))


def test_a_part_that_fails_ends_neither_the_phase_nor_what_was_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = begin("truth", card="Card", rehearsal=False, machine="m", out=tmp_path)
    with found.part("first"):
        found.set("x", 1)
        raise ValueError("broken")
    with found.part("second"):
        found.set("y", True)
    kept = orjson.loads((tmp_path / "truth.json").read_bytes())
    assert kept["figures"] == {"x": 1.0, "y": 1.0}
    assert kept["notes"] == ["failed: first: ValueError('broken')"]
    assert found.failures == 1
    assert "y: 1" in capsys.readouterr().out
