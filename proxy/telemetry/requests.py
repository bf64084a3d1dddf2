"""The latest requests: never a text, only its size, times and result."""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

KEPT_REQUESTS = 200
TIMED = 1000  # the latest of each route, for its percentiles
MAX_CLIENTS = 200  # the latest; one more forgets the one that was quiet for longest


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRecord:
    """What a request for vectors took; the seconds as in Timing."""

    task: str
    inputs: int
    tokens: int
    wait_s: float
    compute_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """One answered request, at a time of the Unix epoch.

    `client` is the digest of its API key; the address where there are no keys. `error` is the code of what went wrong,
    `trace` the id of the trace that it is part of.
    """

    id: str
    at: float
    method: str
    route: str
    status: int
    seconds: float
    client: str
    error: str
    usage: UsageRecord | None
    trace: str = ""


@dataclass(slots=True)
class ClientTotals:
    """What one client has sent since the proxy started."""

    requests: int = 0
    inputs: int = 0
    tokens: int = 0
    failed: int = 0
    last: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteTimes:
    """How long the latest requests of a route took: each percentile is a time that was seen."""

    route: str
    requests: int
    failed: int
    p50_s: float
    p95_s: float
    p99_s: float


@dataclass(slots=True)
class _Route:
    requests: int = 0
    failed: int = 0
    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=TIMED))


class RequestLog:
    """Bounded, whatever arrives. `count` is of all requests that were added."""

    def __init__(self) -> None:
        self.count = 0
        self._latest = deque[RequestRecord](maxlen=KEPT_REQUESTS)
        self._routes: dict[str, _Route] = {}
        self._clients: dict[str, ClientTotals] = {}

    def add(self, one: RequestRecord) -> None:
        self.count += 1
        self._latest.append(one)
        failed = one.status >= 400
        route = self._routes.setdefault(one.route, _Route())
        route.requests += 1
        route.failed += failed
        route.seconds.append(one.seconds)
        client = self._clients[one.client] = self._clients.pop(one.client, ClientTotals())
        client.requests += 1
        client.failed += failed
        client.last = one.at
        if one.usage:
            client.inputs += one.usage.inputs
            client.tokens += one.usage.tokens
        if len(self._clients) > MAX_CLIENTS:
            del self._clients[next(iter(self._clients))]

    def since(self, count: int, client: str | None = None) -> list[RequestRecord]:
        """Those that were added after the first `count`, as far as they are kept; the oldest first. Or one client's."""
        new = min(self.count - count, len(self._latest))
        return [one for one in list(self._latest)[len(self._latest) - new :] if client in {None, one.client}]

    def clients(self, client: str | None = None) -> dict[str, ClientTotals]:
        """Who sends, by most tokens, then by most requests. Or one client alone."""
        ranked = sorted(self._clients.items(), key=lambda row: (row[1].tokens, row[1].requests), reverse=True)
        return {name: totals for name, totals in ranked if client in {None, name}}

    def routes(self) -> list[RouteTimes]:
        """The routes by most requests."""
        ranked = sorted(self._routes.items(), key=lambda row: row[1].requests, reverse=True)
        return [_times(name, route) for name, route in ranked]


def _times(name: str, route: _Route) -> RouteTimes:
    ordered = sorted(route.seconds)
    return RouteTimes(
        route=name,
        requests=route.requests,
        failed=route.failed,
        p50_s=_at(ordered, 0.5),
        p95_s=_at(ordered, 0.95),
        p99_s=_at(ordered, 0.99),
    )


def _at(ordered: Sequence[float], share: float) -> float:
    """The nearest rank: the least value that so large a share does not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
