"""docs/troubleshooting.md has each error and each line of the doctor, and quotes no message that is gone."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from launcher.doctor import checks
from launcher.errors import LauncherError
from proxy.errors import ProxyError
from proxy.faults import Invalid

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")


def table(heading: str) -> list[list[str]]:
    """The cells of each row of the first table below that heading."""
    lines = PAGE.split(f"\n## {heading}\n")[1].splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("|---"))
    rows = []
    for line in lines[start + 1 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def below(error: type[Exception]) -> Iterator[type[Exception]]:
    """The class and all that are derived from it."""
    yield error
    for one in error.__subclasses__():
        yield from below(one)


def test_each_line_of_the_doctor_has_an_entry() -> None:
    documented = [row[0].strip("`") for row in table("Lines of trillama doctor")]
    assert documented == list(dict.fromkeys(checks.LINES))


def test_each_error_of_a_client_has_an_entry_with_its_status() -> None:
    raised = {(str(one.status), one.code) for one in below(ProxyError) if issubclass(one, ProxyError)}
    assert (str(Invalid.status), Invalid.code) in raised  # of a file of its own: its classes exist once it is imported
    documented = [
        (status, row[1].strip("`")) for row in table("Errors that clients get") for status in row[0].split(", ")
    ]
    assert set(documented) == raised
    assert len(documented) == len(raised)


def test_each_exit_code_of_an_error_has_an_entry() -> None:
    raised = {one.exit_code for one in below(LauncherError) if issubclass(one, LauncherError)}
    assert {int(row[0]) for row in table("It does not start")} == raised


def test_each_message_it_quotes_is_one_of_ours() -> None:
    said = {
        text for package in ("launcher", "proxy") for file in (ROOT / package).rglob("*.py") for text in texts(file)
    }
    said |= set(texts(ROOT / "trillama.py"))
    quoted = [row[1] for row in table("It does not start")] + [row[0] for row in table("Restarted again and again")]
    fragments = [one for cell in quoted for one in re.findall(r"`([^`]+)`", cell)]
    assert [one for one in fragments if not any(one in text for text in said)] == []


def texts(file: Path) -> Iterator[str]:
    """Every text in the file's code; those of an f-string in parts."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
