"""Our output, made printable: no text from a file, a hub or a log can control the terminal."""

import logging
import time
from collections.abc import Iterable, Mapping

import orjson
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from proxy.contract.log_lines import UNPRINTABLE, PrintableFormatter, log_line, printable

if logging.lastResort:  # writes warnings where there is no other handler
    logging.lastResort.setFormatter(PrintableFormatter())


def json_line(facts: object) -> bytes:
    """One line of JSON for programs, which is also harmless on a terminal."""
    text = orjson.dumps(facts).decode()
    return UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text).encode() + b"\n"


_LEVELS: Mapping[str | None, str] = {"red": "error", "yellow": "warning"}  # of what is said in that style


class Terminal(Console):
    """A console for foreign text: no markup, no highlighting, no control characters.

    With `json_lines` each sentence that it says is a JSON object, as the proxy's log lines are.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, highlight=False, emoji=False)
        self.json_lines = False

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Escapes all text that is printed; rich's own control codes are separate segments."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))

    @property
    def has_bars(self) -> bool:
        """Whether progress can be drawn on it."""
        return self.is_terminal and not self.json_lines

    def say(self, text: str, *, style: str | None = None, facts: Mapping[str, object] | None = None) -> None:
        """Print one sentence without wrapping it, so that paths and commands in it can be copied.

        Programs that read JSON get the `facts`, too; `level` among them replaces that of the style.
        """
        if self.json_lines:
            line = log_line(time.time(), _LEVELS.get(style, "info"), "launcher", {"message": text, **(facts or {})})
            self.file.write(line + "\n")
            self.file.flush()
        else:
            self.print(text, style=style, soft_wrap=True)


stdout, stderr = Terminal(), Terminal(stderr=True)
