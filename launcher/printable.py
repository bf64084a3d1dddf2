"""Foreign text on a terminal: what a file, a hub or a log says must not move the cursor, nor hide what it is."""

import re
from collections.abc import Iterable

import orjson
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

# C0 but tab and newline, DEL and C1; line separators; marks that turn the direction of writing; half a surrogate, which
# no encoding writes.
UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufff9-\ufffb\ud800-\udfff]"
)


def printable(text: str) -> str:
    r"""The text with every character that a terminal would obey written as \x1b or \u202e."""
    return UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def json_line(facts: object) -> bytes:
    """The facts as one line of JSON: for programs, and harmless where it is looked at all the same."""
    text = orjson.dumps(facts).decode()
    return UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text).encode() + b"\n"


class Terminal(Console):
    """A console for sentences and tables that hold foreign text: no markup, no highlighting, nothing that it obeys."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, highlight=False, emoji=False)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Everything that is printed or drawn comes through here; rich's own control codes are segments apart."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))

    def say(self, text: str, *, style: str | None = None) -> None:
        """One sentence, not wrapped: what is in it is there to be copied."""
        self.print(text, style=style, soft_wrap=True)
