"""The outcome of one check of `trillama doctor`."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """`fix` says what to do, as a command if possible; it is empty if and only if the level is ok."""

    level: Level
    text: str
    fix: str = ""


def ok(text: str) -> Finding:
    """As it should be, or nothing that could be fixed."""
    return Finding(Level.OK, text)


def warn(text: str, fix: str) -> Finding:
    """It serves, but not as well or as safely as it could."""
    return Finding(Level.WARN, text, fix)


def fail(text: str, fix: str) -> Finding:
    """It will not serve like this."""
    return Finding(Level.FAIL, text, fix)
