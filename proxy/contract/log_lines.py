"""The lines of the log, of JSON or in words, in one form for the launcher and the proxy. All are safe to print."""

import json
import logging
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Protocol, runtime_checkable

# C0 except tab and newline, DEL and C1; line separators; marks that change the direction of writing; lone surrogates,
# which no encoding can write.
UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufff9-\ufffb\ud800-\udfff]"
)


class LogFormat(StrEnum):
    TEXT = "text"
    JSON = "json"


@runtime_checkable
class HasFacts(Protocol):
    """What is logged with more than words: `facts` has at least `message`."""

    def facts(self) -> Mapping[str, object]: ...


class JsonFormatter(logging.Formatter):
    """Each record as one line: `log_line` of its facts, with the traceback under `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        facts = dict(record.msg.facts() if isinstance(record.msg, HasFacts) else {"message": record.getMessage()})
        if record.exc_info:
            facts["exception"] = self.formatException(record.exc_info)
        return log_line(record.created, record.levelname.lower(), record.name, facts)


def printable(text: str) -> str:
    r"""The text with every control character escaped, such as \x1b or \u202e."""
    return UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


class PrintableFormatter(logging.Formatter):
    """Log lines in words, as logging's own, but printable."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def log_line(at: float, level: str, logger: str, facts: Mapping[str, object]) -> str:
    """One object of JSON without its newline; `at` in seconds of the Unix epoch. All ASCII: harmless on a terminal."""
    time = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    whole = {"time": time, "level": level, "logger": logger, **facts}
    return json.dumps({name: _encodable(value) for name, value in whole.items()})


def _encodable(value: object) -> object:
    """Without lone surrogates, from bytes that are no text: strict readers do not take them as JSON."""
    return value.encode(errors="replace").decode() if isinstance(value, str) else value
