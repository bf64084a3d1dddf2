"""The listening socket that systemd hands over (sd_listen_fds(3)), checked: a wrong socket unit is said, not served."""

import os
import socket
from collections.abc import Mapping

from launcher.errors import StartError

FIRST_FD = 3  # SD_LISTEN_FDS_START
VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
TCP = frozenset({socket.AF_INET, socket.AF_INET6})


def inherited() -> socket.socket | None:
    """The TCP socket that systemd listens on for this process; None if it hands us none.

    It is not passed on to children by itself, and the variables are gone from the environment afterwards: they are
    meant for this process alone. Raises StartError with what to write in the socket unit.
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
