"""Chooses the node for a piece: the one that would be done first. Pure."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

UNKNOWN_SPEED = 1000.0  # tokens per second, while no node has said its own
PIECES_PER_NODE = 2  # of one request at once: one computes while the next travels, and the rest is for other requests
PATIENCE = 2.0  # how much longer than the least busy node the one that has a text in its cache may take


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLoad:
    """What a node has to compute: the tokens sent there and not answered, and those of others that wait there.

    `tokens_per_s` is 0 while it is unknown.
    """

    in_flight: int
    others: int
    tokens_per_s: float


def choose(loads: Mapping[str, NodeLoad], tokens: int, key: bytes, *, cached: bool = False) -> str:
    """The node that would be done first with so many tokens more; of equal ones, another for each key.

    `cached`: a node may have the answer already. The same key then goes to the same node first, unless that takes more
    than PATIENCE times as long as the least busy one.
    """
    typical = _typical_speed(loads)
    seconds = {
        name: (load.in_flight + load.others + tokens) / (load.tokens_per_s or typical) for name, load in loads.items()
    }
    ranks = {name: _rank(name, key) for name in loads}
    if cached:
        first = max(ranks, key=ranks.__getitem__)
        if seconds[first] <= PATIENCE * min(seconds.values()):
            return first
    return min(loads, key=lambda name: (seconds[name], ranks[name]))


def at_once(nodes: int) -> int:
    """How many pieces of one request may be in flight, so that it never occupies all nodes."""
    return PIECES_PER_NODE * max(1, nodes)


def waiting_of_others(queued: int, in_flight: int) -> int:
    """The tokens of other callers that wait at a node, which said how many wait in all."""
    return max(0, queued - in_flight)


def _typical_speed(loads: Mapping[str, NodeLoad]) -> float:
    known = [load.tokens_per_s for load in loads.values() if load.tokens_per_s > 0]
    return sum(known) / len(known) if known else UNKNOWN_SPEED


def _rank(name: str, key: bytes) -> bytes:
    """Rendezvous hashing: a key keeps its order of nodes when others come or leave."""
    return hashlib.blake2b(name.encode() + b"\0" + key, digest_size=8).digest()
