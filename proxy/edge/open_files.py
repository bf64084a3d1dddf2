"""How many connections the open files of a process allow: accepting one too many fails, again and again."""

import resource
from contextlib import suppress
from dataclasses import dataclass

from proxy.edge.connections import SPARE

OWN = 128  # for what is no client's: llama-servers, the cache, logs
BACKLOG = 1024
LEAST = 16
NO_LIMIT = 2**20  # stands for one that is not there


@dataclass(frozen=True, slots=True)
class ConnectionRoom:
    """`connections` at a time, and `backlog` that are accepted in one go, before any can be closed for another."""

    connections: int
    backlog: int


def raise_limit() -> None:
    """Take all the open files that the system allows this process."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # some systems have a lower bound beside this one
        resource.setrlimit(resource.RLIMIT_NOFILE, (NO_LIMIT if hard == resource.RLIM_INFINITY else hard, hard))


def limit() -> int:
    """How many files this process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return NO_LIMIT if soft == resource.RLIM_INFINITY else soft


def room(files: int) -> ConnectionRoom:
    """What so many open files have room for."""
    backlog = min(BACKLOG, files // 8)
    return ConnectionRoom(max(LEAST, files - backlog - SPARE - OWN), backlog)
