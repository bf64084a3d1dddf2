"""A log that one cause cannot fill: of warnings that are alike a few are written, the rest are counted."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

FEW = 5
WINDOW_S = 10.0
KINDS = 256  # remembered at a time
BEGINNING = 60  # characters by which two are alike


@dataclass(slots=True)
class _Kind:
    since: float
    count: int = 0


class Repeats(logging.Filter):
    """Lets FEW like warnings or errors pass in WINDOW_S seconds; the next one after that says how many did not."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._kinds: dict[tuple[str, str], _Kind] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        now, key = self._clock(), (record.name, str(record.msg)[:BEGINNING])
        kind = self._kinds.get(key)
        if kind is None or now - kind.since > WINDOW_S:
            if kind and kind.count > FEW:
                record.msg = f"{record.getMessage()} ({kind.count - FEW} more like it are left out)"
                record.args = ()
            if len(self._kinds) >= KINDS:
                self._kinds.clear()
            kind = self._kinds[key] = _Kind(now)
        kind.count += 1
        return kind.count <= FEW
