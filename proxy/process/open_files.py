"""How many connections the process's limit on open files allows: accepting one too many fails, again and again."""

import resource
from contextlib import suppress
from dataclasses import dataclass

SPARE = 64  # connections beyond the limit: they get an error response, and probes are still answered
OWN = 128  # files that are not clients' connections: llama-servers, the cache, logs
BACKLOG = 4096  # connections that wait in the kernel, which resets some when there are more; most systems allow no more
MAX_ACCEPTS = 128  # at once: a few milliseconds of the loop
STEPS = 6  # of the loop from a connection's acceptance to its end, if it is closed at once to make room
MIN_CONNECTIONS = 16
_NO_LIMIT = 2**20  # stands for a missing limit


@dataclass(frozen=True, slots=True)
class ConnectionRoom:
    """`connections` at a time, of which `accepts` are accepted in one step of the loop."""

    connections: int
    accepts: int


def raise_limit() -> None:
    """Raise the soft limit on open files to the hard limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # some systems have another, lower limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (_NO_LIMIT if hard == resource.RLIM_INFINITY else hard, hard))


def limit() -> int:
    """How many files this process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _NO_LIMIT if soft == resource.RLIM_INFINITY else soft


def room(files: int) -> ConnectionRoom:
    """The connections that so many open files allow."""
    accepts = max(8, min(MAX_ACCEPTS, files // 32))
    return ConnectionRoom(max(MIN_CONNECTIONS, files - STEPS * accepts - SPARE - OWN), accepts)
