"""Who looks at the console, and what is not for everybody's eyes."""

from dataclasses import dataclass

FOR_OPERATORS = "shown to operators"


@dataclass(frozen=True, slots=True)
class Watcher:
    """`name` is a client as in a RequestRecord. One that `sees_all` is shown other clients' requests, too."""

    name: str
    operator: bool
    sees_all: bool

    @property
    def shown_client(self) -> str | None:
        """The only client whose requests it is shown; None for all."""
        return None if self.sees_all else self.name

    def told(self, text: str) -> str:
        """A text of the launcher's: it may quote a llama-server's log, and a line there the text of a request."""
        return text if self.operator or not text else FOR_OPERATORS
