"""The commands for a trillama that runs: `status`, `restart`, `reload`, `logs`."""

import asyncio
import time
from collections.abc import Coroutine
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from launcher.backend import State
from launcher.config import Settings, load
from launcher.control import ask
from launcher.errors import ConfigError, NotRunning
from launcher.folders import log_dir
from launcher.follow import Follower
from launcher.printable import Terminal
from launcher.signals import until_signal
from launcher.view import BackendView, View

REFRESH_S = 1.0
FOLLOW_S = 0.2
COLOURS = {
    State.READY: "green",
    State.SLEEPING: "blue",
    State.STARTING: "yellow",
    State.BACKOFF: "red",
    State.FAILED: "red",
}

stdout = Terminal()
ConfigFile = Annotated[Path | None, typer.Option("--config", help="The configuration that it runs with.")]


def status(
    config: ConfigFile = None,
    json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Go on until Ctrl-C.")] = False,
) -> None:
    """Show what a running trillama does. Exit code 0 if every backend serves, 1 if one does not, 69 if none runs."""
    settings = load(config)
    if watch:
        asyncio.run(until_signal(_watch(settings)))
        return
    view = asyncio.run(ask(settings, "GET", "/status"))
    if json:
        stdout.print_json(view.model_dump_json(), ensure_ascii=True)  # foreign text stays what it is, in escapes
    else:
        stdout.print(_page(view))
    if any(one.state not in (State.READY, State.SLEEPING) for one in view.backends):
        raise typer.Exit(1)


def restart(
    backend: Annotated[list[str] | None, typer.Argument(help="Which, e.g. code [default: all, one by one].")] = None,
    config: ConfigFile = None,
) -> None:
    """Start backends again, one after the other, while the others serve."""
    settings = load(config)
    _run(_restart(settings, backend or list(settings.family.weights.models)))


def reload(config: ConfigFile = None) -> None:
    """Have the configuration read again; only what it changes is started again (as SIGHUP does)."""
    _run(ask(load(config), "POST", "/reload"))


def logs(
    backend: Annotated[str | None, typer.Argument(help="Which, e.g. code [default: all].")] = None,
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, help="How many of the last lines.")] = 20,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until Ctrl-C.")] = False,
    earlier: Annotated[int, typer.Option(min=0, help="N: the N-th run before this one.")] = 0,
    config: ConfigFile = None,
) -> None:
    """Show what the llama-servers wrote: errors only, a file per run."""
    settings = load(config)
    names = list(settings.family.weights.models)
    if backend and backend not in names:
        raise ConfigError(f"there is no backend {backend}; there are {', '.join(names)}")
    folder, suffix = asyncio.run(_log_folder(settings)), f".log.{earlier}" if earlier else ".log"
    files = {name: folder / f"{name}{suffix}" for name in ([backend] if backend else names)}
    for name, file in files.items():
        _print(name, _read(file)[-lines:] if lines else [], alone=bool(backend))
    if follow:
        asyncio.run(until_signal(_follow(files, alone=bool(backend))))


async def _log_folder(settings: Settings) -> Path:
    """Where the running one keeps them, else where one that this user starts would."""
    try:
        return Path((await ask(settings, "GET", "/status")).logs)
    except NotRunning:
        return log_dir()


def _run(asking: Coroutine[None, None, View]) -> None:
    view = asyncio.run(until_signal(asking))
    if view is None:
        raise typer.Exit(130)
    stdout.print(_page(view))


async def _restart(settings: Settings, names: list[str]) -> View:
    for name in names[:-1]:
        await ask(settings, "POST", f"/backends/{name}/restart")
    return await ask(settings, "POST", f"/backends/{names[-1]}/restart")


async def _watch(settings: Settings) -> None:
    with Live(console=stdout, auto_refresh=False) as live:
        while True:
            live.update(_page(await ask(settings, "GET", "/status")), refresh=True)
            await asyncio.sleep(REFRESH_S)


def _page(view: View) -> Group:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for heading in ("backend", "state", "restarts", "queue", "tokens/s", "memory"):
        table.add_column(heading, no_wrap=True)
    for one in view.backends:
        table.add_row(*_row(one))
    title = f"trillama {view.version} at {view.url}, {view.engine.origin} llama.cpp {view.engine.version}"
    return Group(Text(title), table, *(Text(_line(one)) for one in view.backends))


def _line(one: BackendView) -> str:
    """What is too long for a table: the model, and why it does not serve."""
    cause = f": {one.cause}" if one.cause and one.state is not State.READY else ""
    return f"{one.name}: {Path(one.model).name}{cause}"


def _row(one: BackendView) -> list[Text | str]:
    since = timedelta(seconds=int(time.time() - one.since))
    loaded = f" {one.loaded:.0%}" if one.state is State.STARTING else ""
    return [
        one.name,
        Text(f"{one.state}{loaded} {f'{since.days} d' if since.days else since}", style=COLOURS.get(one.state, "")),
        str(one.restarts),
        "" if one.waiting_texts is None else str(one.waiting_texts),
        f"{one.tokens_per_s:,.0f}" if one.tokens_per_s else "",
        _memory(one),
    ]


def _memory(one: BackendView) -> str:
    """Of a GPU what was planned, for no engine tells; of the host what it has."""
    if one.devices:
        return ", ".join(f"{device} {one.planned_bytes.get(device, 0) / 2**30:.1f} GiB" for device in one.devices)
    return "" if one.resident_bytes is None else f"{one.resident_bytes / 2**30:.2f} GiB"


def _read(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []


def _print(name: str, lines: list[str], *, alone: bool) -> None:
    for line in lines:
        stdout.print(line if alone else f"{name}: {line}", markup=False, highlight=False, soft_wrap=True)


async def _follow(files: dict[str, Path], *, alone: bool) -> None:
    """Print what is added to the files, and to those of the runs that come."""
    with ExitStack() as stack:
        followers = {name: stack.enter_context(Follower(file)) for name, file in files.items()}
        while True:
            for name, follower in followers.items():
                _print(name, follower.lines(), alone=alone)
            await asyncio.sleep(FOLLOW_S)
