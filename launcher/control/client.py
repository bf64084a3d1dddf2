"""Client of a running launcher's control socket: finds the one that a command means, and checks whose it is."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from pydantic import ValidationError

from launcher import __version__
from launcher.control.status import EXIT_CODE, View
from launcher.control.trusted_socket import is_ours, is_served_by_its_owner
from launcher.errors import Declined, LauncherError, NotRunning
from launcher.fleet.address import Target
from launcher.processes.runtime_folder import CONTROL_SOCKET
from launcher.settings.config import Settings
from launcher.settings.folders import runtime_base

SYSTEM_FOLDER = Path("/run/trillama")  # RuntimeDirectory= of configs/systemd/trillama.service
STATUS_TIMEOUT = aiohttp.ClientTimeout(total=5)
ACTION_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=2)  # loading models takes as long as it takes


@dataclass(frozen=True, slots=True)
class Running:
    """A running launcher, and its status when it was found."""

    socket: Path
    view: View

    async def tell(self, path: str) -> View:
        """Make it do something; its status afterwards. Raises LauncherError with its reason if it refuses."""
        view = await _request(self.socket, "POST", path)
        if view is None:
            raise NotRunning("trillama ended before it answered")
        return view


async def find_running(settings: Settings, target: Target | None) -> Running:
    """The trillama on this machine that is meant: `target`, else the one on the settings' port, else the only one.

    Raises NotRunning if none that this user may control runs, or if several do.
    """
    host = settings.host
    running = await _running(host.runtime_dir or runtime_base())
    urls = ", ".join(one.view.url for one in running)
    if target:
        chosen = [one for one in running if target.is_meant(one.view.url, one.view.port)]
        if not chosen:
            raise NotRunning(f"no trillama runs here at {target}; there is {urls}")
    else:
        chosen = [one for one in running if one.view.port == host.port] or running
    if len(chosen) > 1:
        raise NotRunning(f"several run here ({urls}): name one with --url, --port, or its configuration's --config")
    return chosen[0]


async def _running(base: Path) -> list[Running]:
    """The launchers that this user may control. Raises NotRunning, or the error of an odd answer, if none."""
    running, silent, foreign, faults = list[Running](), list[Path](), list[Path](), list[LauncherError]()
    for socket in _sockets(base):
        try:
            if not is_ours(socket) or not await asyncio.to_thread(is_served_by_its_owner, socket):
                foreign.append(socket)
            elif view := await _request(socket, "GET", "/status"):
                running.append(Running(socket, view))
        except (TimeoutError, BlockingIOError):  # it does not answer, or no longer accepts connections
            silent.append(socket)
        except OSError:  # the socket of one that was killed
            continue
        except LauncherError as error:  # another may be the one that is meant
            faults.append(error)
    if not running:
        raise faults[0] if faults else _none_runs(silent, foreign)
    return running


def _none_runs(silent: Sequence[Path], foreign: Sequence[Path]) -> NotRunning:
    """Why none of those found can be asked."""
    if silent:
        return NotRunning(
            f"the trillama of {silent[0].parent} does not answer: it is stopped or stuck, so end it with kill"
        )
    belongs = "belongs to another user, or lets others in, and was not contacted"
    others = f"; {foreign[0].parent} {belongs}" if foreign else ""
    return NotRunning(
        f"no trillama that you may control runs here: start it with `trillama serve` (a service: use sudo){others}"
    )


def _sockets(base: Path) -> list[Path]:
    return [
        path for folder in dict.fromkeys((base, SYSTEM_FOLDER)) for path in folder.glob(f"trillama-*/{CONTROL_SOCKET}")
    ]


async def _request(socket: Path, method: str, path: str) -> View | None:
    """The status it answers with; None if nothing listens. Raises TimeoutError if it does not answer."""
    timeout = STATUS_TIMEOUT if method == "GET" else ACTION_TIMEOUT
    try:
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket)), timeout=timeout) as session,
            session.request(method, f"http://trillama{path}") as response,
        ):
            body = await response.read()
    except TimeoutError:
        raise
    except (aiohttp.ClientError, OSError):
        return None
    if response.status != 200:
        raise Declined(body.decode(errors="replace"), _exit_code(response.headers.get(EXIT_CODE, "")))
    try:
        return View.model_validate_json(body)
    except ValidationError as error:
        raise LauncherError(
            f"the running trillama is another version than this {__version__}: stop it and start it again"
        ) from error


def _exit_code(given: str) -> int:
    """The code in that header; another version may send none."""
    return int(given) if given.isascii() and given.isdigit() and 0 < int(given) < 128 else LauncherError.exit_code
