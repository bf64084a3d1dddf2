"""`trillama service`: install, uninstall, status, on top of `launcher.systemd`."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from launcher.cluster.ray_start import TOKEN_NAME
from launcher.errors import ArgumentError, ConfigError, ServiceError
from launcher.printable import stdout
from launcher.settings.config import Settings, load
from launcher.systemd import systemctl, units
from launcher.systemd.systemctl import Manager
from launcher.systemd.units import SERVICE_UNIT, SOCKET_UNIT, Installation

LOG_LINES = 10
CREDENTIALS = ("api_keys", TOKEN_NAME)
NOT_ACTIVE = 3  # as `systemctl is-active`
SERVICE_EXIT_CODES = """
Exit codes: 0 done, or active; 1 systemd does not run or refused; 2 wrong arguments; 3 `status`: not active; 78 wrong
configuration, or files that the service could not read.
"""

service_app = typer.Typer(help="Run as a systemd service.", no_args_is_help=True, epilog=SERVICE_EXIT_CODES)

User = Annotated[bool, typer.Option("--user", help="A service of your own, not the system's.")]
ServiceConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", help="[default: /etc/trillama/host.toml, with --user ~/.config/trillama/host.toml, if it exists]"
    ),
]
Socket = Annotated[bool, typer.Option("--socket", help="systemd holds the port: none is refused during a restart.")]
ClusterHead = Annotated[
    Path | None, typer.Option(metavar="CLUSTER.toml", help="A cluster's head in place of `serve`: docs/cluster.md.")
]
ClusterJoin = Annotated[str | None, typer.Option(metavar="HOST", help="A host of that cluster in place of `serve`.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only print what would be written and run.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite a unit that something else wrote.")]


@service_app.command(epilog=SERVICE_EXIT_CODES)
def install(
    user: User = False,
    config: ServiceConfigFile = None,
    socket: Socket = False,
    cluster_head: ClusterHead = None,
    cluster_join: ClusterJoin = None,
    dry_run: DryRun = False,
    force: Force = False,
) -> None:
    """Write the unit, enable it and start it. An earlier one of ours is replaced."""
    command = _command(cluster_head, cluster_join, socket=socket)
    file = None if cluster_head else _config_file(config, user)
    settings = load(file)
    installation = Installation(
        user=user,
        python=Path(sys.executable).absolute(),
        config=file,
        listen=units.address(settings.host) if socket else None,
        credentials=tuple(one for one in CREDENTIALS if (units.settings_folder(user) / one).is_file()),
        command=command,
    )
    texts, folder, manager = units.units(installation), units.unit_folder(user), Manager(user)
    if dry_run:
        _show(texts, folder, manager)
    _check(settings, file, user=user, socket=socket)
    if dry_run:
        return
    manager.check()
    if (taken := systemctl.foreign(folder)) and not force:
        raise ServiceError(f"{folder / taken[0]} was written by something else: remove it, or use --force")
    _remove(folder, manager)
    systemctl.write_units(folder, texts)
    for arguments in _start(tuple(texts)):
        manager.tell(*arguments)
    stdout.say(f"installed and starting: {', '.join(str(folder / name) for name in texts)}")
    stdout.say(f"watch it start: trillama service status{' --user' if user else ''}")
    if user:
        stdout.say("it ends when you log out; to prevent that: loginctl enable-linger")


@service_app.command(epilog=SERVICE_EXIT_CODES)
def uninstall(user: User = False, dry_run: DryRun = False) -> None:
    """Stop, disable and remove the units that `install` wrote. Nothing else: models and settings stay."""
    folder, manager = units.unit_folder(user), Manager(user)
    found = systemctl.ours(folder)
    if dry_run:
        stdout.say(f"would stop, disable and remove: {', '.join(str(folder / name) for name in found) or 'nothing'}")
        return
    manager.check()
    if not found:
        raise ServiceError(f"{folder} has no unit written by `trillama service install`: nothing was removed")
    _remove(folder, manager)
    manager.tell("daemon-reload")
    stdout.say(f"removed: {', '.join(str(folder / name) for name in found)}")


@service_app.command("status", epilog=SERVICE_EXIT_CODES)
def service_status(user: User = False) -> None:
    """Show whether it runs. Also since when, its own status, and its last log lines."""
    manager = Manager(user)
    manager.check()
    shown = manager.show(SERVICE_UNIT)
    active = shown.get("ActiveState") == "active"
    if shown.get("LoadState") == "not-found":
        stdout.say("trillama.service is not installed: trillama service install")
        raise typer.Exit(NOT_ACTIVE)
    stdout.say(_described(shown))
    socket = manager.show(SOCKET_UNIT)
    if socket.get("LoadState") == "loaded":
        stdout.say(f"socket: {socket.get('ActiveState')} at {socket.get('Listen', '?')}")
    stdout.say(manager.log(SERVICE_UNIT, LOG_LINES).rstrip())
    stdout.say(f"more: journalctl {'--user-unit' if user else '--unit'} trillama")
    if not active:
        raise typer.Exit(NOT_ACTIVE)


def _command(head: Path | None, join: str | None, *, socket: bool) -> tuple[str, ...]:
    """What the service runs. Raises ArgumentError for options that exclude each other."""
    if ((head or join) and socket) or (head and join):
        raise ArgumentError(
            "a service is one of three: serve (with --socket or without), --cluster-head, --cluster-join"
        )
    if head:
        return "cluster", "head", str(head.absolute())
    return ("cluster", "join", join) if join else ("serve",)


def _config_file(given: Path | None, user: bool) -> Path | None:
    """The configuration's absolute path; None for the defaults."""
    default = units.settings_folder(user) / "host.toml"
    chosen = given or (default if default.is_file() else None)
    return chosen.absolute() if chosen else None


def _check(settings: Settings, config: Path | None, *, user: bool, socket: bool) -> None:
    """Raise ConfigError for what would not work after the installation."""
    if settings.host.port in range(1, 1024) and not socket:
        raise ConfigError(f"port {settings.host.port} can only be opened by root: add --socket, and systemd opens it")
    if not user and (obstacle := next(units.unreadable(settings, config), None)):
        raise ConfigError(
            f"the service's user could not read {obstacle}: install it for yourself with --user, or put the "
            "checkout with its .venv (of a Python that everyone may read) in /opt/trillama, the configuration in "
            "/etc/trillama, the keys in /etc/trillama/api_keys, models where everyone may read them"
        )


def _start(names: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    # --no-block: the first start may download for an hour.
    return ("daemon-reload",), ("enable", "--now", "--no-block", *names)


def _remove(folder: Path, manager: Manager) -> None:
    if found := systemctl.ours(folder):
        manager.tell("disable", "--now", *found)  # both together: a waiting connection would start the service again
        for name in found:
            (folder / name).unlink()


def _show(texts: Mapping[str, str], folder: Path, manager: Manager) -> None:
    for name, text in texts.items():
        stdout.say(f"# {folder / name}\n{text}")
    for arguments in _start(tuple(texts)):
        stdout.say(f"# {' '.join((*manager.command, *arguments))}")


def _described(shown: Mapping[str, str]) -> str:
    """E.g. `active (running) since Sat 2026-11-21 15:00:00 UTC, pid 42: retrieval ready, code ready`."""
    state = f"trillama.service: {shown.get('ActiveState')} ({shown.get('SubState')})"
    since = f" since {shown['StateChangeTimestamp']}" if shown.get("StateChangeTimestamp") else ""
    failed = f", {shown['Result']}" if shown.get("Result", "success") != "success" else ""
    pid = f", pid {shown['MainPID']}" if shown.get("MainPID", "0") != "0" else ""
    says = f": {shown['StatusText']}" if shown.get("StatusText") else ""
    return f"{state}{since}{failed}{pid}{says}"
