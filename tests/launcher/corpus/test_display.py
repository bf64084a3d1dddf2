"""What a terminal of 80 columns shows of a job, and what the first Ctrl-C says."""

import asyncio
import io
import re
import time

import pytest

from launcher.corpus.display import Figures, JobDisplay, JobProgress
from launcher.printable import Terminal
from tests.support.polling import until


def figures(**progress: int) -> Figures:
    """Of a job of a million rows that has run for 100 s."""
    seen = JobProgress(**{"rows_done": 400_000, "error_rows": 12, "in_flight": 16, "busy": 3, **progress})  # type: ignore[arg-type]
    return Figures(rows=1_000_000, look=lambda: seen, started=time.monotonic() - 100)


@pytest.fixture
def screen() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def terminal(screen: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """One that writes to the screen as if that were a terminal."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    made = Terminal()
    made.file = screen
    return made


@pytest.mark.parametrize("width", [60, 80, 160])
async def test_the_bar_keeps_its_width_and_the_most_important_figures_are_shown(
    screen: io.StringIO, terminal: Terminal, width: int
) -> None:
    terminal.width = width

    async def drawn() -> bool:
        return "rows" in screen.getvalue()

    async with JobDisplay(terminal).live(figures(texts=20_000, tokens=800_000)):
        await until(drawn)
    line = next(one for one in re.sub(r"\x1b\[[\d;?]*\w", "", screen.getvalue()).splitlines() if "rows" in one)
    assert sum(letter in "━╸╺" for letter in line) == 20
    assert "400000 of 1000000 rows" in line
    assert bool(re.search(r" 5\d min \d\d s left, 12 errors", line)) == (width >= 80)
    assert ("16 in flight" in line) == (width >= 160)


def test_the_first_ctrl_c_says_how_long_the_parts_in_work_still_take(screen: io.StringIO) -> None:
    terminal = Terminal()
    terminal.file = screen
    display = JobDisplay(terminal)
    display.say_stopping()
    for progress in ({"texts": 20_000, "rows_in_work": 9_000}, {"rows_in_work": 9_000}):
        asyncio.run(_shown(display, figures(**progress)))
        display.say_stopping()
    lines = [line for line in screen.getvalue().splitlines() if line.startswith("stopping")]
    first = "stopping: the parts in work are finished first"
    before, estimated, unknown = (line.partition(";")[0].removeprefix(first) for line in lines)
    assert (before, unknown) == ("", "")
    assert re.fullmatch(r", in about [45]\d s", estimated)


async def _shown(display: JobDisplay, of: Figures) -> None:
    async with display.live(of):
        pass
