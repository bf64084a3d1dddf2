"""What a child writes is kept, bounded, and never holds it up."""

import os
import stat
import sys
from pathlib import Path

import pytest

from launcher.processes.child import running
from launcher.processes.child_log import EARLIER_FILES, FILE_BYTES, ChildLog, telling_line
from proxy.contract.log_follower import Follower


async def written(log: ChildLog, script: str) -> int:
    """The exit code of a Python child whose output goes to the log."""
    async with (
        log.pipe() as output,
        running((sys.executable, "-c", script), env=os.environ, grace_s=5, output=output) as process,
    ):
        code = await process.wait()
        await log.complete()
        return code


async def test_each_run_has_its_own_file(tmp_path: Path) -> None:
    log = ChildLog(tmp_path / "code.log")
    for number in range(EARLIER_FILES + 3):
        assert await written(log, f"print('run', {number})") == 0
    last = EARLIER_FILES + 2
    texts = {path.name: path.read_text(encoding="utf-8").strip() for path in tmp_path.iterdir()}
    earlier = {f"code.log.{n}": f"run {last - n}" for n in range(1, EARLIER_FILES + 1)}
    assert texts == {"code.log": f"run {last}", **earlier}


async def test_others_cannot_read_what_a_child_wrote(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    log = ChildLog(folder / "code.log")
    assert await written(log, "print('a text of a user')") == 0
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    log.path.chmod(0o644)  # as earlier versions made it
    assert await written(log, "print('another')") == 0
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


async def test_a_flood_is_bounded_and_its_end_is_kept(tmp_path: Path) -> None:
    log = ChildLog(tmp_path / "code.log")
    flood = (
        f"for n in range({8 * FILE_BYTES // 1000}): print(str(n) * 200, end='' if n % 7 else chr(10))\nprint('the end')"
    )
    assert await written(log, flood) == 0
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= (EARLIER_FILES + 1) * FILE_BYTES
    assert log.path.read_text(encoding="utf-8").endswith("the end\n")


async def test_bytes_that_are_no_text_and_a_last_line_without_end_are_kept(tmp_path: Path) -> None:
    log = ChildLog(tmp_path / "code.log")
    assert await written(log, "import os; os.write(2, b'\\xff failed')") == 0
    assert log.telling == "\N{REPLACEMENT CHARACTER} failed"


async def test_a_full_disk_loses_lines_and_not_the_child() -> None:
    log = ChildLog(Path("/dev/full"))
    assert await written(log, "print('one'); print('two failed')") == 0
    assert log.telling == "two failed"


@pytest.mark.parametrize(
    ("lines", "telling"),
    [
        ([], ""),
        (["all is well"], "all is well"),
        (
            ["load", "E error loading model: no such tensor", "E failed to load model", "exiting"],
            "E error loading model",
        ),
        (["couldn't bind HTTP server socket", "bye"], "couldn't bind"),
    ],
)
def test_the_line_that_tells_why(lines: list[str], telling: str) -> None:
    assert telling_line(lines).startswith(telling)
    assert bool(telling_line(lines)) == bool(lines)


async def test_a_log_is_followed_over_its_runs(tmp_path: Path) -> None:
    path = tmp_path / "code.log"
    path.write_text("said before\n", encoding="utf-8")
    log = ChildLog(path)
    with Follower(path) as follower:
        assert follower.lines() == []
        with path.open("a", encoding="utf-8") as file:
            file.write("one\ntw")
        assert follower.lines() == ["one"]
        with path.open("a", encoding="utf-8") as file:
            file.write("o\nno end of line")
        assert await written(log, "print('a', 'run')") == 0
        assert follower.lines() == ["two", "no end of line", "a run"]
        assert await written(log, "pass") == 0  # renamed, and no file in its place yet
        assert follower.lines() == []
        assert await written(log, "print('the next')") == 0
        assert follower.lines() == ["the next"]
        path.write_text("less\n", encoding="utf-8")  # emptied by hand
        assert follower.lines() == ["less"]


@pytest.mark.parametrize(
    ("earlier", "lines"),
    [(0, []), (1, []), (6, ["three"]), (9, ["three"]), (10, ["two", "three"]), (99, ["one", "two", "three"])],
)
def test_a_log_is_followed_from_a_line_before_its_end(tmp_path: Path, earlier: int, lines: list[str]) -> None:
    path = tmp_path / "code.log"
    path.write_text("one\ntwo\nthree\n", encoding="utf-8")
    with Follower(path, earlier) as follower:
        assert follower.lines() == lines
