"""The log as lines of JSON, in one form for the launcher and the proxy."""

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Protocol, runtime_checkable


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


def log_line(at: float, level: str, logger: str, facts: Mapping[str, object]) -> str:
    """One object of JSON without its newline; `at` in seconds of the Unix epoch. All ASCII: harmless on a terminal."""
    time = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    whole = {"time": time, "level": level, "logger": logger, **facts}
    return json.dumps({name: _encodable(value) for name, value in whole.items()})


def _encodable(value: object) -> object:
    """Without lone surrogates, from bytes that are no text: strict readers do not take them as JSON."""
    return value.encode(errors="replace").decode() if isinstance(value, str) else value
