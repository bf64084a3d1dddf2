"""What a user sees while models are downloaded and loaded: bars on a terminal, one line per change elsewhere."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

from launcher.host.disk import amount
from launcher.printable import Terminal
from launcher.supervision.states import BackendState, Status


class Display:
    """Progress per model. On a terminal the bars vanish when the `live` block ends."""

    def __init__(self, console: Terminal) -> None:
        self.console = console
        self._lines: dict[str, TaskID] = {}
        self._live = False
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.fields[model]:<14} {task.description:<12}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.has_bars,
        )

    @contextmanager
    def live(self) -> Iterator[None]:
        """Draw bars for the length of the block."""
        self._live = self.console.has_bars
        with self._progress:
            yield

    def hide(self) -> None:
        """Stop drawing bars: from now on each change is a line that stays."""
        self._live = False
        self._progress.stop()

    def downloading(self, model: str, done: int, total: int | None) -> None:
        """Show that `done` of `total` bytes are downloaded."""
        if model not in self._lines:
            self.say(f"{model}: downloading" + (f" {amount(total)}" if total else ""))
        self._progress.update(self._line(model), description="downloading", completed=done, total=total)

    def status(self, status: Status) -> None:
        """Show a backend's change of state, or how much of its model is loaded."""
        if status.state is BackendState.STARTING and status.loaded:
            self._progress.update(self._line(status.name), completed=status.loaded, total=1)
            return
        cause = f": {status.cause}" if status.state in (BackendState.BACKOFF, BackendState.FAILED) else ""
        if cause or not self._live:
            said = f"{status.name}: {status.state}{f' (pid {status.pid})' if status.pid else ''}{cause}"
            level = {"level": "warning"} if cause else {}
            self.say(said, {"backend": status.name, "state": str(status.state), **level})
        completed = 1 if status.state is BackendState.READY else 0
        self._progress.update(self._line(status.name), description=str(status.state), completed=completed, total=1)

    def say(self, text: str, facts: Mapping[str, object] | None = None) -> None:
        """Print one line that stays, with `facts` for programs."""
        self.console.say(text, facts=facts)

    def _line(self, model: str) -> TaskID:
        if model not in self._lines:
            self._lines[model] = self._progress.add_task("", model=model, total=None)
        return self._lines[model]
