"""What a user sees while models are fetched and loaded: moving lines on a terminal, one line per change elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from launcher.backend import State
from launcher.build import Progress as BuildProgress


class Display:
    """Progress per model on stderr. On a terminal it vanishes when the block ends."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._lines: dict[str, TaskID] = {}
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.fields[model]:<14} {task.description:<12}"),
            BarColumn(),
            DownloadColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    @contextmanager
    def live(self) -> Iterator[None]:
        """Draw while the block lasts."""
        with self._progress:
            yield

    def hide(self) -> None:
        """Stop drawing, so that what is printed next stays."""
        self._progress.stop()

    def downloading(self, model: str, done: int, total: int | None) -> None:
        """`done` of `total` bytes are here."""
        if model not in self._lines:
            self._say(f"{model}: downloading" + (f" {total / 2**30:.2f} GiB" if total else ""))
        self._progress.update(self._line(model), description="downloading", completed=done, total=total)

    def state(self, model: str, state: State, pid: int) -> None:
        """A backend changed its state."""
        self._say(f"{model}: {state} (pid {pid})")
        total = 1 if state is State.READY else None
        self._progress.update(self._line(model), description=str(state), completed=0, total=total)

    def _line(self, model: str) -> TaskID:
        if model not in self._lines:
            self._lines[model] = self._progress.add_task("", model=model, total=None)
        return self._lines[model]

    def _say(self, text: str) -> None:
        if not self.console.is_terminal:
            self.console.print(text, soft_wrap=True, highlight=False, markup=False)


class BuildDisplay:
    """A bar for `trillama engine build`: the files compiled of all; one line per step where there is no terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=None)
        self._step = ""

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, progress: BuildProgress) -> None:
        """A step has begun or gone on."""
        if progress.step != self._step and not self._console.is_terminal:
            self._console.print(progress.step, soft_wrap=True, highlight=False)
        self._step = progress.step
        self._bar.update(self._task, description=progress.step, completed=progress.done, total=progress.total)
