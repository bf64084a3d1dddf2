"""Which nodes the Fronts may use. Pure: the nodes' reports in, a verdict for each and the vector space out."""

import math
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from pydantic import BaseModel, Field, TypeAdapter

from proxy.contract.front import NodeReport

DRAINED = "drained"  # the reason of a node that its operator drained
EXPIRES_S = 15.0  # a node reports once a second


class HostReport(BaseModel, frozen=True):
    """What a node says of itself: one `trillama serve` on one host.

    `revision` is the roll that started it. `spaces` is the vector space of each backend, as `/ready` has it, with the
    quantisation in brackets; it is empty while the node does not answer yet.
    """

    host: str
    pid: int
    url: str = ""
    spaces: dict[str, str] = Field(default_factory=dict)
    revision: int
    ready: bool = False
    cause: str = ""  # why it is not ready
    queued_tokens: int = 0
    tokens_per_s: float = 0.0


class HostVerdict(BaseModel, frozen=True):
    """A node, how often its host's node was started again, and why it gets no requests; no reason if it does."""

    report: HostReport
    restarts: int
    reason: str = ""


class HostTable:
    """The latest report of each host's node. A Ray actor in the cluster, so that nodes find it wherever the head is."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._reports: dict[str, tuple[float, HostReport]] = {}
        self._starts: dict[str, set[int]] = {}

    def report(self, report: HostReport) -> None:
        """Keep the report of a host's node, in place of the one before."""
        self._reports[report.host] = time.monotonic(), report
        self._starts.setdefault(report.host, set()).add(report.pid)

    def leave(self, host: str, pid: int) -> None:
        """Forget a host's node that ends, unless another runs there by now."""
        if host in self._reports and self._reports[host][1].pid == pid:
            del self._reports[host]

    def nodes(self) -> "HostReports":
        """The reports that have not expired, by host."""
        now = time.monotonic()
        alive = [report for at, report in self._reports.values() if now - at < EXPIRES_S]
        rows = [(one, len(self._starts[one.host]) - 1) for one in sorted(alive, key=lambda one: one.host)]
        return HostReports(nodes=tuple(rows), complete=now - self._since > EXPIRES_S)


class HostReports(BaseModel, frozen=True):
    """The nodes, each with how often it was started again. Not yet `complete`: not each had the time to report."""

    nodes: tuple[tuple[HostReport, int], ...] = ()
    complete: bool = False


WANTED, SEEN = "wanted.json", "seen.json"
ABSENT = "absent"  # Ray has no application of ours


class Wanted(BaseModel, frozen=True):
    """What the head asks for: another revision starts every node again, one after the other; or no `nodes` at all."""

    revision: int = 1
    nodes: bool = True


class Seen(BaseModel, frozen=True):
    """What Ray says: the hosts that have joined, the nodes' reports, and Ray Serve's own words."""

    at: float = 0.0
    hosts: tuple[str, ...] = ()
    reports: HostReports = HostReports()
    status: str = "starting"
    message: str = ""


class Remembered(BaseModel):
    """What outlives a restart of the head."""

    revision: int = 1
    rolling: bool = False
    spaces: dict[str, str] = Field(default_factory=dict)
    drained: tuple[str, ...] = ()
    nodes: dict[str, str] = Field(default_factory=dict)


Spaces = Mapping[str, str]


def next_spaces(pinned: Spaces, fixed: Spaces, reports: Sequence[HostReport], rolling: int | None) -> Spaces:
    """The vector spaces that the cluster serves from now on: it never serves two of one backend.

    `fixed` is what cluster.toml asks for. Without it the first ready node's are pinned, and move only to those of
    nodes of the revision `rolling`, during a roll, once as many of these are ready as of those that serve now.
    """
    ready = [one for one in reports if one.ready and one.spaces]
    if fixed:
        return fixed
    serving = [one.spaces for one in ready if agree(one.spaces, pinned)]
    rolled = [one.spaces for one in ready if one.revision == rolling and not agree(one.spaces, pinned)]
    if pinned and (not rolled or sum(agree(rolled[0], one) for one in rolled) < len(serving)):
        # A backend that starts on demand adds its space at its first request.
        return {**{name: space for one in serving for name, space in _known(one).items()}, **pinned}
    return next((_known(spaces) for spaces in (rolled or serving)), pinned)


def agree(spaces: Spaces, pinned: Spaces) -> bool:
    """Whether a node with these spaces may serve beside those that are pinned."""
    mine, theirs = _known(spaces), _known(pinned)
    return all(space.split(" ")[0] == theirs[name].split(" ")[0] for name, space in mine.items() if name in theirs)


def _known(spaces: Spaces) -> dict[str, str]:
    """Without those of backends that have not been started yet."""
    return {name: space for name, space in spaces.items() if not space.startswith("unknown")}


def listed_nodes(
    before: Mapping[str, str], reports: HostReports, pinned: Spaces, drained: Collection[str]
) -> dict[str, str]:
    """The URL of each node that the Fronts may use, by its host; they find out by themselves which answer now.

    Those of `before` that have not reported yet stay until each has had the time to.
    """
    known = {report.host for report, _ in reports.nodes}
    silent = {} if reports.complete else {host: url for host, url in before.items() if host not in known}
    told = {one.host: one.url for one, _ in reports.nodes if one.spaces and agree(one.spaces, pinned)}
    return {host: url for host, url in {**silent, **told}.items() if host not in drained}


def node_verdicts(
    nodes: Sequence[tuple[HostReport, int]], pinned: Spaces, drained: Collection[str]
) -> tuple[HostVerdict, ...]:
    """Each node with the reason why it gets no requests, if there is one."""
    return tuple(
        HostVerdict(report=report, restarts=restarts, reason=_reason(report, pinned, drained))
        for report, restarts in nodes
    )


_FRONT_REPORTS = TypeAdapter(Mapping[str, NodeReport])


def fixed_verdicts(
    urls: Mapping[str, str], fronts: Sequence[Mapping[str, object]], drained: Collection[str]
) -> tuple[HostVerdict, ...]:
    """Each of the user's own nodes as the first Front that answers sees it; nodes without Ray report nothing else."""
    seen = _FRONT_REPORTS.validate_python(next(filter(None, fronts), {}))
    return tuple(_fixed_verdict(name, url, seen.get(name), name in drained) for name, url in urls.items())


def _fixed_verdict(name: str, url: str, seen: NodeReport | None, drained: bool) -> HostVerdict:
    if seen is None:
        unknown = HostReport(host=name, pid=0, url=url, revision=0)
        return HostVerdict(report=unknown, restarts=0, reason=DRAINED if drained else "no Front says how it is")
    report = HostReport(
        host=name,
        pid=0,
        url=url,
        spaces=dict(seen.spaces),
        revision=0,
        ready=seen.ready,
        cause=seen.reason,
        queued_tokens=seen.queued_tokens,
        tokens_per_s=seen.tokens_per_s,
    )
    return HostVerdict(report=report, restarts=seen.restarts, reason=seen.reason)


def _reason(report: HostReport, pinned: Spaces, drained: Collection[str]) -> str:
    if report.host in drained:
        return DRAINED
    if not report.ready or not report.spaces:
        return report.cause or "it starts"
    for name, space in report.spaces.items():
        if not agree({name: space}, pinned):
            return f"other vector space: {name} {space}, the cluster serves {pinned[name]}"
    return ""


QUEUED, SPEED = "queued_tokens", "tokens_per_s"  # metrics that each node reports to Ray


class ScalingFacts(Protocol):
    """What is used of Ray's AutoscalingContext: the metrics by name and replica, and how many nodes run."""

    current_num_replicas: int

    @property
    def aggregated_metrics(self) -> Mapping[str, Mapping[object, float]] | None:
        """The mean of each metric of each replica over the last seconds."""


class QueuedTokensPolicy:
    """For Ray's autoscaler: enough nodes to compute the queued tokens within `queued_s` seconds.

    Ray calls it in its controller, and applies its bounds and delays to what it returns.
    """

    def __init__(self, queued_s: float) -> None:
        self._queued_s = queued_s

    def __call__(self, facts: ScalingFacts) -> tuple[int, dict[str, object]]:
        """The number of nodes; no state is kept."""
        metrics = facts.aggregated_metrics or {}
        queued = sum((metrics.get(QUEUED) or {}).values())
        speeds = [speed for speed in (metrics.get(SPEED) or {}).values() if speed > 0]
        if not speeds:  # nothing was computed yet, so nothing is known
            return facts.current_num_replicas, {}
        of_one = sum(speeds) / len(speeds)
        return max(1, math.ceil(queued / (of_one * self._queued_s))), {}
