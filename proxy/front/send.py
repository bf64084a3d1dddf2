"""Sends one piece to a node, and to others if that fails. Embedding is pure, so sending it twice harms nobody."""

import asyncio
import logging
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TypeVar

from proxy import metrics
from proxy.contract.admin import LANE_HEADER
from proxy.errors import (
    BackendError,
    BackendUnavailable,
    BadRequest,
    DeadlineExceeded,
    Draining,
    Overloaded,
    ProxyError,
)
from proxy.front.choice import choose
from proxy.front.fleet import NodeFleet
from proxy.front.node import Node
from proxy.front.node_api import BrokenAnswer, NodeAnswer, error_of, piece_body, result_of, tokens_of
from proxy.front.pieces import Piece, size_of
from proxy.front.spaces import UNKNOWN_SPACE
from proxy.types import EmbedRequest, EmbedResult

log = logging.getLogger(__name__)

EMBED_PATH, COUNT_PATH = "/v1/embeddings", "/v1/embeddings/count_tokens"
ATTEMPTS = 3  # a piece that ends its host must not end all of them
_OUTCOMES: Mapping[type[ProxyError], str] = {Overloaded: "full", BadRequest: "refused"}
SHORT_BYTES = 2000  # a single text of at most so many is likely a query, which may come again


@dataclass(frozen=True, slots=True, kw_only=True)
class PieceOrder:
    """What all pieces of a request have in common. `deadline` is the loop's time; `key` authenticates at the nodes.

    `bulk`: a node must not take a piece for a small request.
    """

    request: EmbedRequest
    task: str
    backend: str
    dimensions: int | None
    deadline: float
    bulk: bool
    key: str | None = None
    path: str = EMBED_PATH


T = TypeVar("T")
Read = Callable[[NodeFleet, Node, PieceOrder, Piece, NodeAnswer], T]


@dataclass(slots=True)
class _Attempts:
    """The nodes that failed to compute a piece, and those whose queues are full."""

    failed: dict[str, ProxyError] = field(default_factory=dict)
    full: dict[str, Overloaded] = field(default_factory=dict)
    count: int = 0

    def note(self, node: Node, error: ProxyError) -> None:
        if isinstance(error, Overloaded):
            self.full[node.name] = error
        else:
            self.count += 1
            self.failed[node.name] = error


async def send_piece(fleet: NodeFleet, order: PieceOrder, piece: Piece, number: int) -> EmbedResult:
    """The vectors of a piece, which is the request's piece of that number. Raises what `_sent` raises."""
    return await _sent(fleet, order, piece, number, _read)


async def count_piece(fleet: NodeFleet, order: PieceOrder, piece: Piece) -> int:
    """The tokens of a piece. Raises what `_sent` raises."""
    return await _sent(fleet, replace(order, path=COUNT_PATH), piece, 0, _counted_tokens)


async def _sent(fleet: NodeFleet, order: PieceOrder, piece: Piece, number: int, read: Read[T]) -> T:
    """What `read` makes of the first good answer to a piece.

    Raises BadRequest for what no node would compute; Overloaded if all nodes are full; the last error after ATTEMPTS.
    """
    body = piece_body(order.request, order.task, piece.inputs)
    attempts = _Attempts()
    while True:
        nodes = _able(await fleet.until_serving(order.backend), order.backend, piece)
        node = _next(nodes, attempts, piece)
        if attempts.count:
            metrics.FRONT_RETRIES.labels(order.backend).inc()
        try:
            with _counted(node):
                answer = await node.ask(order.path, body, _headers(order, number), piece.tokens)
                return read(fleet, node, order, piece, answer)
        except BadRequest:
            raise
        except ProxyError as error:
            attempts.note(node, error)
            log.info("%s-p%d: %s", order.request.request_id, number, error.message)
            if attempts.count >= ATTEMPTS:
                raise


@contextmanager
def _counted(node: Node) -> Iterator[None]:
    """Count the attempt by its outcome."""
    outcome = "cancelled"
    try:
        yield
        outcome = "ok"
    except Exception as error:
        outcome = next((name for kind, name in _OUTCOMES.items() if isinstance(error, kind)), "error")
        raise
    finally:
        metrics.FRONT_PIECES.labels(node.name, outcome).inc()


def _counted_tokens(_: NodeFleet, node: Node, __: PieceOrder, ___: Piece, answer: NodeAnswer) -> int:
    """The number in an answer. Raises the error that it is, or BackendError if it cannot be used."""
    _raise_refusal(node, answer)
    try:
        return tokens_of(answer)
    except BrokenAnswer as error:
        raise BackendError(f"node {node.name}: {error}", retry_after_s=5) from error


def _raise_refusal(node: Node, answer: NodeAnswer) -> None:
    """Raises the error that an answer is."""
    if answer.status != 200:
        error = error_of(answer, node.name)
        if isinstance(error, BackendUnavailable | Draining):
            node.doubt()
        raise error


def _read(fleet: NodeFleet, node: Node, order: PieceOrder, piece: Piece, answer: NodeAnswer) -> EmbedResult:
    """The result in an answer. Raises the error that it is, or BackendError if it cannot be used."""
    _raise_refusal(node, answer)
    try:
        result = result_of(answer, piece.rows, order.dimensions)
    except BrokenAnswer as error:
        raise BackendError(f"node {node.name}: {error}", retry_after_s=5) from error
    wanted, made = fleet.pinned.get(order.backend), result.provenance.space
    if wanted and not order.request.multivector and UNKNOWN_SPACE not in {wanted.id, made} and wanted.id != made:
        node.doubt()  # its `/ready` will say the same
        raise BackendUnavailable(f"node {node.name}: other vector space: {order.backend} {made}", retry_after_s=5)
    return result


def _able(nodes: Mapping[str, Node], backend: str, piece: Piece) -> Mapping[str, Node]:
    """Those nodes that take what the piece has; all of them, which then refuse it by name, if none takes images."""
    taking = {name: node for name, node in nodes.items() if node.takes_images(backend)} if piece.images else nodes
    return taking or nodes


def _next(nodes: Mapping[str, Node], attempts: _Attempts, piece: Piece) -> Node:
    """The node for the next attempt. Raises Overloaded if all are full, or the last error if none is left.

    A node that failed is tried again only if a probe of it has succeeded since, and there is no other.
    """
    left = {name: node for name, node in nodes.items() if name not in attempts.failed.keys() | attempts.full.keys()}
    if not left and attempts.full:
        raise _all_full(attempts.full.values())
    if not left:
        left = {
            name: nodes[name]
            for name, error in attempts.failed.items()
            if name in nodes and isinstance(error, BackendUnavailable | Draining)
        }
    if not left:
        raise list(attempts.failed.values())[-1]
    loads = {name: node.load() for name, node in left.items()}
    return left[choose(loads, piece.tokens, _key(piece), cached=_may_be_cached(piece))]


def _all_full(errors: Collection[Overloaded]) -> Overloaded:
    """The error of whole fleet: the earliest time to come back, and all waiting tokens."""
    soonest = min(errors, key=lambda error: error.retry_after_s or math.inf)
    full = Overloaded(soonest.message, retry_after_s=soonest.retry_after_s)
    full.queue_tokens = sum(error.queue_tokens or 0 for error in errors)
    return full


def _headers(order: PieceOrder, number: int) -> dict[str, str]:
    """Raises DeadlineExceeded if no time is left."""
    left = order.deadline - asyncio.get_running_loop().time()
    if left <= 0:
        raise DeadlineExceeded("no time is left", retry_after_s=5)
    headers = {"Content-Type": "application/json", "X-Request-ID": f"{order.request.request_id[:100]}-p{number}"}
    if order.request.trace:
        headers |= order.request.trace.headers
    if left < math.inf:
        headers["X-Request-Timeout"] = f"{left:.3f}"
    if order.bulk:
        headers[LANE_HEADER] = "bulk"
    if order.key:
        headers["Authorization"] = f"Bearer {order.key}"
    return headers


def _may_be_cached(piece: Piece) -> bool:
    (first, *more) = piece.inputs
    return not more and isinstance(first, str) and size_of(first) <= SHORT_BYTES


def _key(piece: Piece) -> bytes:
    first = piece.inputs[0]
    return (first[:SHORT_BYTES] if isinstance(first, str) else str(piece.first)).encode(errors="replace")
