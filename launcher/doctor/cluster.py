"""The check of a cluster on this host: whether Ray asks for its secret."""

from collections.abc import Iterator

import psutil

from launcher.doctor.finding import Finding, ok, warn
from launcher.host.processes import running_processes

RAY = frozenset({"gcs_server", "raylet"})
MODE = "RAY_AUTH_MODE"


def ray_token() -> Finding:
    """Whether a Ray that runs here asks for a token: who reaches one that does not runs programs on this host."""
    found = [one for one in running_processes(["name"]) if one.info["name"] in RAY]
    if not found:
        return ok("no Ray runs here")
    ports = ", ".join(str(port) for port in sorted({port for one in found for port in _ports(one)}))
    where = f"on all addresses, ports {ports}" if ports else "on ports that this user may not see"
    if open_ones := [one for one in found if not _asks_for_token(one)]:
        text = f"Ray runs without a token {where}: whoever reaches it runs programs here ({_who(open_ones)})"
        return warn(text, "end it; `trillama cluster head` and `join` start one with a token")
    return ok(f"Ray asks for its token; it listens {where}, which only your private network should reach")


def _asks_for_token(process: psutil.Process) -> bool:
    try:
        return bool(process.environ().get(MODE) == "token")
    except psutil.Error:  # another user's, of which nothing is known, or one that has just ended
        return True


def _ports(process: psutil.Process) -> Iterator[int]:
    """The TCP ports that it listens on at every address."""
    try:
        for one in process.net_connections("tcp"):
            if one.status == psutil.CONN_LISTEN and one.laddr.ip in {"0.0.0.0", "::"}:  # noqa: S104 # compared
                yield one.laddr.port
    except psutil.Error:
        return


def _who(processes: list[psutil.Process]) -> str:
    return ", ".join(f"{one.info['name']} {one.pid}" for one in processes)
