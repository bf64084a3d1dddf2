"""The socket that clients connect to. The launcher owns it, so that it outlives a restarted proxy.

systemd may hand it over; it is checked, as a wrong socket unit has to be reported, not served.
"""

import errno
import os
import socket
from collections.abc import Mapping

from launcher.errors import StartError
from launcher.settings.config import HostConfig

FIRST_FD = 3  # SD_LISTEN_FDS_START
VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
TCP = frozenset({socket.AF_INET, socket.AF_INET6})


def listen(host: HostConfig) -> socket.socket:
    """systemd's socket if it hands us one, else a new one; port 0 takes a free one. Raises StartError with the fix."""
    if (given := _inherited()) is not None:
        return given
    kind = socket.AF_INET6 if ":" in host.host else socket.AF_INET
    try:
        return socket.create_server((host.host, host.port), family=kind, backlog=1024)
    except OSError as error:
        fix = (
            "choose another with --port" if error.errno == errno.EADDRINUSE else "is --host an address of this machine?"
        )
        reason = str(error.strerror).partition(" (while ")[0]  # socket repeats the address there
        raise StartError(f"cannot listen on {host.host}:{host.port}: {reason}; {fix}") from error


def _inherited() -> socket.socket | None:
    """The TCP socket that systemd listens on for this process (sd_listen_fds(3)); None if it hands us none.

    Children do not inherit it, and the variables are removed from the environment: they are for this process alone.
    Raises StartError, saying what to write in the socket unit.
    """
    given = {name: os.environ.pop(name) for name in VARIABLES if name in os.environ}
    count = socket_count(given, os.getpid())
    if count > 1:
        raise StartError(f"systemd hands over {count} sockets: keep one ListenStream= in the socket unit")
    return _checked() if count == 1 else None


def socket_count(given: Mapping[str, str], pid: int) -> int:
    """How many sockets these variables hand to process `pid`; names are ignored. Raises StartError if broken."""
    if given.get("LISTEN_PID") != str(pid):
        return 0
    count = given.get("LISTEN_FDS", "")
    if not (count.isascii() and count.isdigit()):
        raise StartError(f"LISTEN_FDS is {count!r}, not a number of sockets: unset it together with LISTEN_PID")
    return int(count)


def _checked() -> socket.socket:
    try:
        listener = socket.socket(fileno=FIRST_FD)
    except OSError as error:
        raise StartError(f"LISTEN_FDS names file descriptor 3, which is no socket: {error.strerror}") from error
    listener.set_inheritable(False)
    if listener.family not in TCP or listener.type != socket.SOCK_STREAM:
        what = f"{listener.family.name} {listener.type.name}"
        listener.close()
        raise StartError(f"systemd hands over a socket of {what}, not TCP: write ListenStream=ADDRESS:PORT in its unit")
    if not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        listener.close()
        raise StartError("systemd hands over a socket that does not listen: write Accept=no in the socket unit")
    return listener
