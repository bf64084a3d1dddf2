"""The socket that clients connect to. It is the launcher's, so that it outlives a proxy that is started again."""

import errno
import socket

from launcher.errors import StartError
from launcher.fleet import activation
from launcher.settings.config import HostConfig


def listen(host: HostConfig) -> socket.socket:
    """systemd's socket if it hands us one, else a new one; port 0 takes a free one.

    Raises StartError with what to do.
    """
    if (given := activation.inherited()) is not None:
        return given
    kind = socket.AF_INET6 if ":" in host.host else socket.AF_INET
    try:
        return socket.create_server((host.host, host.port), family=kind, backlog=1024)
    except OSError as error:
        fix = (
            "choose another with --port" if error.errno == errno.EADDRINUSE else "is --host an address of this machine?"
        )
        raise StartError(f"cannot listen on {host.host}:{host.port}: {error.strerror}; {fix}") from error
