"""Keeps one cause from filling the log: of similar warnings a few are written, the rest are counted."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

MAX_REPEATS = 5
WINDOW_S = 10.0
MAX_KINDS = 256  # remembered at a time
_PREFIX = 60  # messages with the same first characters are similar


@dataclass(slots=True)
class _Kind:
    since: float
    count: int = 0


class Repeats(logging.Filter):
    """Passes MAX_REPEATS similar warnings or errors per WINDOW_S seconds; the next one says how many were dropped."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._kinds: dict[tuple[str, str], _Kind] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        now, key = self._clock(), (record.name, str(record.msg)[:_PREFIX])
        kind = self._kinds.get(key)
        if kind is None or now - kind.since > WINDOW_S:
            if kind and kind.count > MAX_REPEATS:
                record.msg = f"{record.getMessage()} ({kind.count - MAX_REPEATS} similar messages were left out)"
                record.args = ()
            if len(self._kinds) >= MAX_KINDS:
                self._kinds.clear()
            kind = self._kinds[key] = _Kind(now)
        kind.count += 1
        return kind.count <= MAX_REPEATS
