"""Which control sockets are trusted: in /tmp anybody can make a folder with the name of ours.

A folder is trusted if it belongs to us, to root or to the owner of its parent, and nobody else may enter it. Root can
act as anybody anyway. The parent's owner: systemd gives /run/trillama to the service's user, and root runs commands on
that service; /tmp is root's.
"""

import os
import socket
import stat
import struct
from pathlib import Path

CONNECT_S = 5.0  # for a launcher that is stopped or stuck
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: `struct ucred` of unix(7)


def is_ours(path: Path) -> bool:
    """Whether that socket and its private folder belong to users that we trust."""
    try:
        base, folder, file = path.parent.parent.stat(), path.parent.lstat(), path.lstat()
    except OSError:
        return False
    trusted = {os.geteuid(), 0, base.st_uid}
    private = stat.S_ISDIR(folder.st_mode) and not folder.st_mode & 0o077
    return private and stat.S_ISSOCK(file.st_mode) and {folder.st_uid, file.st_uid} <= trusted


def is_served_by_its_owner(path: Path) -> bool:
    """Whether the process behind the socket runs as the folder's owner or as root, by what the kernel says (Linux).

    Blocks, CONNECT_S at most. Raises OSError if nothing listens, TimeoutError if nothing accepts.
    """
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(CONNECT_S)
        peer.connect(str(path))
        if not hasattr(socket, "SO_PEERCRED"):
            return True
        _, user, _ = _CREDENTIALS.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return user in (0, path.parent.lstat().st_uid)
