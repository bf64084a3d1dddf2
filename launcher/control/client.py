"""How a command asks and tells a launcher that runs: which one is meant, and whether it is to be believed."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from pydantic import ValidationError

from launcher import __version__
from launcher.control.server import SOCKET
from launcher.control.status import View
from launcher.control.trusted_socket import is_ours, is_served_by_its_owner
from launcher.errors import LauncherError, NotRunning
from launcher.fleet.address import Target
from launcher.settings.config import Settings
from launcher.settings.folders import runtime_base

SYSTEM_FOLDER = Path("/run/trillama")  # RuntimeDirectory= of configs/systemd/trillama.service
LOOK = aiohttp.ClientTimeout(total=5)
ACT = aiohttp.ClientTimeout(total=None, sock_connect=2)  # loading models takes what it takes


@dataclass(frozen=True, slots=True)
class Running:
    """A launcher that runs, and what it said when it was found."""

    socket: Path
    view: View

    async def tell(self, path: str) -> View:
        """Have it do something; what it says then. Raises LauncherError with its words if it refuses."""
        view = await _asked(self.socket, "POST", path)
        if view is None:
            raise NotRunning("trillama ended before it answered")
        return view


async def find(settings: Settings, target: Target | None) -> Running:
    """The trillama of this machine that is meant: `target`, else the one on the settings' port, else the only one.

    Raises NotRunning if there is none that this user may ask, or several.
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
    """Those that this user may ask. Raises NotRunning if there is none."""
    running, silent, foreign = list[Running](), list[Path](), list[Path]()
    for socket in _sockets(base):
        try:
            if not is_ours(socket) or not await asyncio.to_thread(is_served_by_its_owner, socket):
                foreign.append(socket)
            elif view := await _asked(socket, "GET", "/status"):
                running.append(Running(socket, view))
        except (TimeoutError, BlockingIOError):  # it answers nobody, or accepts nobody any more
            silent.append(socket)
        except OSError:  # what is left of one that was killed
            continue
    if not running and silent:
        raise NotRunning(
            f"the trillama of {silent[0].parent} does not answer: it is stopped or stuck, so end it by kill"
        )
    if not running:
        others = f"; {foreign[0].parent} is somebody else's and was not asked" if foreign else ""
        raise NotRunning(
            f"no trillama that you may ask runs here: start it with `trillama serve` (a service: use sudo){others}"
        )
    return running


def _sockets(base: Path) -> list[Path]:
    return [path for folder in dict.fromkeys((base, SYSTEM_FOLDER)) for path in folder.glob(f"trillama-*/{SOCKET}")]


async def _asked(socket: Path, method: str, path: str) -> View | None:
    """None if nobody is there. Raises TimeoutError for one that does not answer a look."""
    timeout = LOOK if method == "GET" else ACT
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
        raise LauncherError(body.decode(errors="replace"))
    try:
        return View.model_validate_json(body)
    except ValidationError as error:
        raise LauncherError(
            f"what runs is another version of trillama than this {__version__}: stop it and start it again"
        ) from error
