"""The commands for a running trillama: `status`, `restart`, `reload`, `logs`."""

import asyncio
import time
from collections.abc import Coroutine, Sequence
from contextlib import ExitStack, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from launcher.cluster.client import head_runs
from launcher.control.client import Running, find_running
from launcher.control.status import BackendView, View
from launcher.errors import ArgumentError, NotRunning
from launcher.fleet.address import Target, target
from launcher.printable import stderr, stdout
from launcher.settings.config import Settings, load
from launcher.settings.family import BY_TOKEN
from launcher.settings.folders import log_dir, runtime_base
from launcher.supervision.states import BackendState
from launcher.terminal.options import EXIT_CODES
from launcher.terminal.signals import until_signal
from proxy.contract.log_follower import Follower

REFRESH_S = 1.0
FOLLOW_S = 0.2
COLOURS = {
    BackendState.READY: "green",
    BackendState.SLEEPING: "blue",
    BackendState.STARTING: "yellow",
    BackendState.BACKOFF: "red",
    BackendState.FAILED: "red",
}

running_app = typer.Typer()

RunningConfigFile = Annotated[Path | None, typer.Option("--config", help="The configuration that it runs with.")]
LocalUrl = Annotated[str | None, typer.Option(help="The one at that address on this machine, e.g. localhost:8081.")]
LocalPort = Annotated[int | None, typer.Option(min=1, max=65535, help="The one on that port.")]


@running_app.command("status", epilog=EXIT_CODES)
def status(
    config: RunningConfigFile = None,
    url: LocalUrl = None,
    port: LocalPort = None,
    json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Continue until Ctrl-C.")] = False,
) -> None:
    """Show what a running trillama does. Exits with 0 if every backend serves, 1 if one does not, 69 if none runs."""
    settings, chosen = load(config), target(url, port)
    if watch:
        asyncio.run(until_signal(_watch(settings, chosen)))
        return
    view = asyncio.run(_found(settings, chosen)).view
    if json:
        stdout.print_json(view.model_dump_json(), ensure_ascii=True)  # foreign text is kept, as escapes
    else:
        stdout.print(_page(view))
    if any(one.state not in (BackendState.READY, BackendState.SLEEPING) for one in view.backends):
        raise typer.Exit(1)


@running_app.command("restart", epilog=EXIT_CODES)
def restart(
    backend: Annotated[
        list[str] | None, typer.Argument(help="As `trillama status` names it [default: all, one by one].")
    ] = None,
    config: RunningConfigFile = None,
    url: LocalUrl = None,
    port: LocalPort = None,
) -> None:
    """Restart backends, one after the other, while the others serve."""
    _run(_restart(load(config), target(url, port), backend or []))


@running_app.command("reload", epilog=EXIT_CODES)
def reload(config: RunningConfigFile = None, url: LocalUrl = None, port: LocalPort = None) -> None:
    """Read the configuration again. Only what it changes is restarted; SIGHUP does the same."""
    _run(_reload(load(config), target(url, port)))


@running_app.command("logs", epilog=EXIT_CODES)
def logs(
    backend: Annotated[str | None, typer.Argument(help="As `trillama status` names it [default: all].")] = None,
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, help="How many of the last lines.")] = 20,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Continue until Ctrl-C.")] = False,
    earlier: Annotated[int, typer.Option(min=0, help="N: the N-th run before this one.")] = 0,
    config: RunningConfigFile = None,
    url: LocalUrl = None,
    port: LocalPort = None,
) -> None:
    """Show what the llama-servers wrote. Only errors, one file per run."""
    folder, there = asyncio.run(_logs(load(config), target(url, port)))
    names = [_known(backend, there)] if backend else there
    suffix = f".log.{earlier}" if earlier else ".log"
    files = {name: folder / f"{name}{suffix}" for name in names}
    for name, file in files.items():
        _print(name, _read(file)[-lines:] if lines else [], unprefixed=bool(backend))
    if lines and not any(_read(file) for file in files.values()):
        stderr.say(f"nothing is in {' or '.join(map(str, files.values()))}: a llama-server writes errors only")
    if follow:
        asyncio.run(until_signal(_follow(files, unprefixed=bool(backend))))


async def _found(settings: Settings, chosen: Target | None) -> Running:
    """The running trillama that is meant. Raises NotRunning; beside a cluster's head, with its own command."""
    try:
        return await find_running(settings, chosen)
    except NotRunning as error:
        if await head_runs(runtime_base()):
            raise NotRunning(f"{error}. A cluster's endpoint runs here: `trillama cluster status` shows it") from error
        raise


async def _logs(settings: Settings, chosen: Target | None) -> tuple[Path, list[str]]:
    """The log folder and backends of the running one; else those of one that this user would start."""
    try:
        view = (await _found(settings, chosen)).view
    except NotRunning:
        if chosen:
            raise
        return log_dir(), list(settings.family.weights.models)
    return Path(view.logs), [one.name for one in view.backends]


def _known(backend: str, there: Sequence[str]) -> str:
    if backend not in there:
        raise ArgumentError(f"there is no backend {backend}; there are {', '.join(there)}")
    return backend


def _run(asking: Coroutine[None, None, View]) -> None:
    view = asyncio.run(until_signal(asking))
    if view is None:
        raise typer.Exit(130)
    stdout.print(_page(view))


async def _restart(settings: Settings, chosen: Target | None, backends: Sequence[str]) -> View:
    running = await _found(settings, chosen)
    view, there = running.view, [one.name for one in running.view.backends]
    every = [name for name in there if not name.endswith(BY_TOKEN)]
    for name in [_known(name, there) for name in backends or every]:
        view = await running.tell(f"/backends/{name}/restart")
    return view


async def _reload(settings: Settings, chosen: Target | None) -> View:
    return await (await _found(settings, chosen)).tell("/reload")


async def _watch(settings: Settings, chosen: Target | None) -> None:
    with Live(console=stdout, auto_refresh=False) if stdout.is_terminal else nullcontext() as live:
        while True:
            page = _page((await _found(settings, chosen)).view)
            if live:
                live.update(page, refresh=True)
            else:  # one after the other; Live would write the last alone
                stdout.print(page)
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
    cause = f": {one.cause}" if one.cause and one.state is not BackendState.READY else ""
    return f"{one.name}: {Path(one.model).name}{cause}"


def _row(one: BackendView) -> list[Text | str]:
    since = timedelta(seconds=int(time.time() - one.since))
    loaded = f" {one.loaded:.0%}" if one.state is BackendState.STARTING else ""
    return [
        one.name,
        Text(f"{one.state}{loaded} {f'{since.days} d' if since.days else since}", style=COLOURS.get(one.state, "")),
        str(one.restarts),
        "" if one.waiting_texts is None else str(one.waiting_texts),
        f"{one.tokens_per_s:,.0f}" if one.tokens_per_s else "",
        _memory(one),
    ]


def _memory(one: BackendView) -> str:
    """On a GPU the planned memory, as no engine reports its own; on the host the resident memory."""
    if one.devices:
        return ", ".join(f"{device} {one.planned_bytes.get(device, 0) / 2**30:.1f} GiB" for device in one.devices)
    return "" if one.resident_bytes is None else f"{one.resident_bytes / 2**30:.2f} GiB"


def _read(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []


def _print(name: str, lines: list[str], *, unprefixed: bool) -> None:
    for line in lines:
        stdout.say(line if unprefixed else f"{name}: {line}")


async def _follow(files: dict[str, Path], *, unprefixed: bool) -> None:
    """Print what is added to the files, also by later runs."""
    with ExitStack() as stack:
        followers = {name: stack.enter_context(Follower(file)) for name, file in files.items()}
        while True:
            for name, follower in followers.items():
                _print(name, follower.lines(), unprefixed=unprefixed)
            await asyncio.sleep(FOLLOW_S)
