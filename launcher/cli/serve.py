"""`trillama serve`: runs the fleet, reports to users and systemd, and handles reloads."""

import asyncio
import shlex
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import orjson
import typer

from launcher import __version__
from launcher.control import server
from launcher.control.ready_file import ready_file
from launcher.errors import ConfigError
from launcher.fleet import fleet as supervisor
from launcher.fleet.fleet import Fleet
from launcher.fleet.listener import listen
from launcher.fleet.prepare import available_settings, prepare
from launcher.printable import Terminal, stderr, stdout
from launcher.settings.config import LOOPBACK, Settings
from launcher.supervision import probes
from launcher.supervision.deployment import Deployment
from launcher.supervision.states import Status
from launcher.systemd import notify
from launcher.terminal.log_format import use_log_format
from launcher.terminal.options import EXIT_CODES, ConfigFile, Demo, Images, Tiny, settings_of
from launcher.terminal.progress import Display
from launcher.terminal.signals import until_signal
from launcher.terminal.streams import losing

# The third shares no word with the first.
_EXAMPLE = (
    "overheating lightsaber",
    "What do I do if my lightsaber overheats?",
    "My laser sword is getting too hot.",
    "How do I brew a good espresso?",
)
_WARNING = {"level": "warning"}
_COSINES = (
    'import json,sys; a,*b=[r["embedding"] for r in json.load(sys.stdin)["data"]]; '
    'print(*(f"{sum(x*y for x,y in zip(a,c)):.2f}" for c in b))'
)


serve_app = typer.Typer()


@serve_app.command("serve", epilog=EXIT_CODES)
def serve_(
    config: ConfigFile = None,
    demo: Demo = False,
    tiny: Tiny = False,
    images: Images = False,
    host: Annotated[str | None, typer.Option(help="Address to listen on [default: 127.0.0.1].")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port; 0 takes a free one [default: 8080].")
    ] = None,
    ready_file: Annotated[
        Path | None, typer.Option(help="Written as JSON (url, port, pid, spaces) when it serves; removed at its end.")
    ] = None,
) -> None:
    """Start the llama-servers and the proxy, and serve until Ctrl-C."""
    overrides = {"host": host, "port": port}
    read = partial(settings_of, config, demo=demo, tiny=tiny, images=images, overrides=overrides)
    asyncio.run(run_serve(read, out=stdout, err=stderr, ready_path=ready_file))


async def run_serve(
    read: Callable[[], Settings], *, out: Terminal, err: Terminal, ready_path: Path | None = None
) -> None:
    """Serve the settings that `read` returns until SIGINT, SIGTERM or the end of its terminal, which end it in order.

    Any other SIGHUP reads the settings again. `ready_path` is written when it serves. Raises LauncherError.
    """
    settings = read()
    use_log_format(settings.host.proxy.log_format)
    hung_up = asyncio.Event()

    async def serving() -> None:
        display = Display(losing(err))
        async with ready_file(ready_path) as tell_parent:
            with listen(settings.host) as listener, display.live():
                chosen = await available_settings(settings, display)
                session = _Session(read, chosen, listener, display, losing(out))
                deployment = await prepare(chosen, listener, display)
                await supervisor.serve(deployment, session.report, partial(session.run, hung_up, tell_parent))

    await until_signal(serving(), on_hangup=hung_up.set)


class _Session:
    def __init__(
        self, read: Callable[[], Settings], settings: Settings, listener: socket.socket, display: Display, out: Terminal
    ) -> None:
        self._read = read
        self._settings = settings
        self._listener = listener
        self._display = display
        self._out = out
        self._statuses: dict[str, Status] = {}
        self._reloading = asyncio.Lock()

    def report(self, status: Status) -> None:
        self._statuses[status.name] = status
        self._display.status(status)
        notify.tell(STATUS=", ".join(f"{one.name} {one.state}" for one in self._statuses.values()))

    async def run(self, hung_up: asyncio.Event, tell_parent: Callable[[str], Awaitable[None]], fleet: Fleet) -> None:
        """Announce that it is ready, feed the watchdog, and carry out commands, until cancelled. `hung_up`: reload."""

        async def reload() -> None:
            await self._reload(fleet)
            await tell_parent(fleet.deployment.url)

        async with server.control_server(fleet, reload), asyncio.TaskGroup() as tasks:
            tasks.create_task(self._on_hangup(hung_up, reload))
            await fleet.ready()
            self._display.hide()
            await tell_parent(fleet.deployment.url)
            _announce(fleet.deployment, self._out)
            for status in fleet.troubled:
                self._display.say(f"{status.name} is not served: {status.cause}", _WARNING)
            notify.tell(READY="1")
            tasks.create_task(notify.feed_watchdog(partial(probes.proxy_up, fleet.deployment.url)))

    async def _on_hangup(self, hung_up: asyncio.Event, reload: server.Reload) -> None:
        while True:
            await hung_up.wait()
            hung_up.clear()
            try:
                await reload()
            except Exception as error:  # noqa: BLE001 # no error of a reload may end what runs
                reason = server.reason_of(error)
                self._display.say(f"reload failed, the old configuration stays active: {reason}", _WARNING)
            else:
                self._display.say("the configuration has been read again")

    async def _reload(self, fleet: Fleet) -> None:
        """Raises LauncherError or OSError, with nothing changed, if the new settings cannot be served."""
        async with self._reloading:  # else a slow reload of older settings could end last
            settings = self._read()
            if self._settings.fallback is None:  # what is served may be a fallback already: another family is a restart
                settings = settings.fallback or settings
            _check_can_change(self._settings, settings)
            await fleet.change(await prepare(settings, self._listener, self._display, ours=fleet.memory))
            self._settings = settings
            use_log_format(settings.host.proxy.log_format)


def _check_can_change(old: Settings, new: Settings) -> None:
    """Raises ConfigError for settings that only a restart can change."""
    for name in ("host", "port", "runtime_dir", "demo"):
        if getattr(old.host, name) != getattr(new.host, name):
            raise ConfigError(f"another {name} needs a restart of trillama")
    if old.host.late_chunking.token_level != new.host.late_chunking.token_level:
        raise ConfigError("another late_chunking.token_level needs a restart of trillama")
    if old.family.weights.models.keys() != new.family.weights.models.keys():
        raise ConfigError("another family needs a restart of trillama")


def _announce(deployment: Deployment, out: Terminal) -> None:
    """Print where it serves and with what, and a command to paste."""
    host, family = deployment.settings.host, deployment.settings.family
    if host.notice:
        out.say(host.notice, style="yellow")
    if host.host not in LOOPBACK and not host.proxy.api_keys:
        warning = f"anyone who reaches {host.host}:{host.port} is served: set api_keys under [proxy]"
        out.say(warning, style="yellow")
    served = f"{family.name}, {deployment.engine.origin} llama.cpp {deployment.engine.version}"
    out.say(f"trillama {__version__} is ready at {deployment.url} ({served})")
    if out.json_lines:
        return
    out.say(f'cosine similarity of "{_EXAMPLE[0]}" to each of: {" ".join(_EXAMPLE[1:])}')
    out.say(f"  {_example(deployment.url, family.name, with_key=bool(host.proxy.api_keys))}")


def _example(url: str, model: str, *, with_key: bool) -> str:
    """A command that prints the cosine of each other text to the first."""
    key = ' -H "Authorization: Bearer $KEY"' if with_key else ""
    body = orjson.dumps({"model": model, "input": _EXAMPLE}).decode()
    request = f"curl -s {url}/v1/embeddings -H 'Content-Type: application/json'{key} -d {shlex.quote(body)}"
    return f"{request} | python3 -c {shlex.quote(_COSINES)}"
