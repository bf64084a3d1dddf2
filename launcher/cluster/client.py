"""The status document of a cluster's head, and the client of the control socket that serves it."""

import asyncio
import time
from pathlib import Path

import aiohttp
from pydantic import BaseModel

from launcher.cluster.nodes import HostVerdict
from launcher.cluster.ray_start import RayAccess
from launcher.control.client import SYSTEM_FOLDER
from launcher.control.trusted_socket import is_ours, is_served_by_its_owner
from launcher.errors import ArgumentError, LauncherError, NotRunning

CONTROL = "cluster.sock"
_TIMEOUT = aiohttp.ClientTimeout(total=120)
_POLL_S = 0.2


class ProgramView(BaseModel):
    """One of the head's own processes, or the tree below it."""

    name: str
    pid: int | None
    restarts: int
    resident_bytes: int


class ClusterView(BaseModel):
    """The status of the cluster. `fronts` is each Front's view of the nodes, as `GET /nodes` has it."""

    url: str
    pid: int
    ray: str
    access: RayAccess | None
    message: str
    revision: int
    rolling: bool
    spaces: dict[str, str]
    hosts: tuple[str, ...]
    nodes: tuple[HostVerdict, ...]
    fronts: tuple[dict[str, dict[str, object]], ...]
    programs: tuple[ProgramView, ...]


async def ask_cluster(base: Path, method: str, path: str) -> ClusterView:
    """Make the head that runs on this host do something; its status afterwards. Raises NotRunning without one."""
    socket = await _control_socket(base)
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket)), timeout=_TIMEOUT) as session,
        session.request(method, f"http://trillama{path}") as response,
    ):
        body = await response.read()
    if response.status != 200:
        raise LauncherError(body.decode(errors="replace"))
    return ClusterView.model_validate_json(body)


async def drain_node(base: Path, node: str, *, undo: bool, within_s: float) -> ClusterView:
    """Drain a node until no Front has a piece there, or let it serve again. Raises LauncherError if a piece stays."""
    view = await ask_cluster(base, "GET", "/status")
    known = [one.report.host for one in view.nodes]
    node = node.removeprefix("http://").removesuffix("/")  # as `cluster front --node` takes it
    if node not in known:
        raise ArgumentError(f"there is no node {node}; there are {', '.join(known) or 'none'}")
    view = await ask_cluster(base, "DELETE" if undo else "POST", f"/drained/{node}")
    deadline = time.monotonic() + within_s
    while not undo and any(name.split(",")[0] == node for one in view.fronts for name in one):  # `NAME, leaving`
        if time.monotonic() > deadline:
            raise LauncherError(f"{node} still computes after {within_s:g} s")
        await asyncio.sleep(_POLL_S)
        view = await ask_cluster(base, "GET", "/status")
    return view


async def head_runs(base: Path) -> bool:
    """Whether a head that this user may control runs here: a trillama, but not one that `find_running` finds."""
    try:
        await _control_socket(base)
    except NotRunning:
        return False
    return True


async def _control_socket(base: Path) -> Path:
    for folder in dict.fromkeys((base, SYSTEM_FOLDER)):
        for path in folder.glob(f"trillama-*/{CONTROL}"):
            try:
                if is_ours(path) and await asyncio.to_thread(is_served_by_its_owner, path):
                    return path
            except OSError:  # the socket of one that was killed
                continue
    raise NotRunning("no cluster's head that you may control runs here: trillama cluster head CLUSTER.toml")
