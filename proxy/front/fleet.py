"""The nodes of a Front: the list, which of them serve a backend now, and the vector spaces that they must have."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Protocol

from proxy import metrics
from proxy.contract.family import Family
from proxy.contract.front import FrontLoad, FrontSettings, NodeReport
from proxy.errors import BackendUnavailable, Draining
from proxy.front.node import Node
from proxy.front.node_state import NodeModels
from proxy.front.spaces import Space, conflict, repinned

log = logging.getLogger(__name__)


class ControlledNodes(Protocol):
    """What the control API needs."""

    def reports(self) -> Mapping[str, NodeReport]: ...
    def replace(self, urls: Mapping[str, str]) -> None: ...


class NodeFleet:
    """Each node is probed by a task of `tasks`, until it has left the list and completed its pieces."""

    def __init__(self, settings: FrontSettings, family: Family, tasks: asyncio.TaskGroup) -> None:
        self._settings, self._family, self._tasks = settings, family, tasks
        self._nodes = dict[str, Node]()
        self._leaving = list[Node]()
        self._watching = set[asyncio.Task[None]]()
        self._pinned: Mapping[str, Space] = {name: Space(space) for name, space in settings.spaces.items()}
        self._changed = asyncio.Event()
        self._waiting = 0
        self._served_before = self._stopping = False
        metrics.FRONT_NODES.labels("ready").set_function(lambda: sum(node.ready for node in self._nodes.values()))
        metrics.FRONT_NODES.labels("down").set_function(lambda: sum(not node.ready for node in self._nodes.values()))
        self.replace(settings.nodes)

    @property
    def pinned(self) -> Mapping[str, Space]:
        """The vector space of each backend, as far as it is known."""
        return self._pinned

    @property
    def models(self) -> NodeModels | None:
        """What the nodes serve: as the first one says that is up, or was."""
        known = [node for node in self._nodes.values() if node.state.models]
        return max(known, key=lambda node: node.up).state.models if known else None

    def serving(self, backend: str) -> dict[str, Node]:
        """The nodes that serve the backend now."""
        return {name: node for name, node in self._nodes.items() if node.serves(backend)}

    async def until_serving(self, backend: str) -> dict[str, Node]:
        """Wait for a node that serves the backend, as for a model that starts or failed. Raises BackendUnavailable."""
        if found := self.serving(backend):
            return found
        settings = self._settings
        self._waiting += 1
        try:
            async with asyncio.timeout(settings.recovery_s if self._served_before else settings.start_wait_s):
                while not (found := self.serving(backend)):
                    if self._stopping:
                        raise Draining("the server is stopping", retry_after_s=5)
                    await self._changed.wait()
                return found
        except TimeoutError:
            raise BackendUnavailable(self._why_not(backend), retry_after_s=10) from None
        finally:
            self._waiting -= 1

    def replace(self, urls: Mapping[str, str]) -> None:
        """Replace the list. A node that stays keeps its connections; one that leaves completes its pieces."""
        kept = {name: node for name, node in self._nodes.items() if urls.get(name, "").rstrip("/") == node.url}
        for name, node in self._nodes.items():
            if name not in kept:
                node.leaving = True
                self._leaving.append(node)
                log.info("node %s leaves", name)
        self._nodes = kept | {name: self._joined(name, url) for name, url in urls.items() if name not in kept}
        self._notify()

    def reports(self) -> Mapping[str, NodeReport]:
        """Each node as it is now, with those that are leaving."""
        leaving = {f"{node.name}, leaving": node for node in self._leaving}
        return {name: _report(node) for name, node in {**self._nodes, **leaving}.items()}

    def load(self) -> FrontLoad:
        nodes = self._nodes.values()
        ready = [node for node in nodes if node.ready]
        return FrontLoad(
            nodes=len(nodes),
            nodes_ready=len(ready),
            waiting_requests=self._waiting,
            queued_tokens=sum(node.in_flight_tokens + node.state.others for node in nodes),
            tokens_per_s=sum(node.state.tokens_per_s for node in ready),
        )

    def states(self) -> dict[str, str]:
        """By node: `ready`, or why it is not."""
        return {name: "ready" if node.ready else node.why_not() for name, node in self._nodes.items()}

    def state_of(self, backend: str) -> str:
        """`ready` if a node serves the backend, or why none does."""
        return "ready" if self.serving(backend) else self._why_not(backend)

    def stop(self) -> None:
        """Reject the requests that wait for a node, and new ones that would."""
        self._stopping = True
        self._notify()

    def refusal(self, node: Node) -> str | None:
        """Why a node that is up must not be used: it has another vector space than the others."""
        listed = [one.state.spaces for one in self._nodes.values()]
        if not node.leaving:
            pinned = repinned(self._pinned, self._settings.spaces, listed, node.state.spaces)
            for backend, space in pinned.items():
                if backend in self._pinned and self._pinned[backend].id != space.id:
                    log.warning("the vector space of %s is now %s", backend, space.shown)
            self._pinned = pinned
        return conflict(node.state.spaces, self._pinned)

    def _joined(self, name: str, url: str) -> Node:
        settings = self._settings
        key = settings.node_api_key or next(iter(settings.api_keys), None)
        node = Node(name, url, key, self._note_change)
        metrics.FRONT_IN_FLIGHT.labels(name).set_function(lambda: node.in_flight)
        watching = self._tasks.create_task(node.watch(self._family, self.refusal), name=f"node {name}")
        self._watching.add(watching)
        watching.add_done_callback(lambda task: self._left(node, task))
        return node

    def _left(self, node: Node, task: asyncio.Task[None]) -> None:
        self._watching.discard(task)
        if node in self._leaving:
            self._leaving.remove(node)
        if node.name not in self._nodes:
            metrics.FRONT_IN_FLIGHT.remove(node.name)

    def _note_change(self, node: Node) -> None:
        self._served_before = self._served_before or node.up
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _why_not(self, backend: str) -> str:
        reasons = [f"node {name}: {node.why_not(backend)}" for name, node in self._nodes.items()]
        return f"no node serves {backend}: {'; '.join(reasons) or 'there are none'}"

    def stop_watching(self) -> None:
        """Stop probing; the nodes' connections are closed."""
        for task in self._watching:
            task.cancel()


def _report(node: Node) -> NodeReport:
    return NodeReport(
        url=node.url,
        ready=node.ready and not node.leaving,
        reason="" if node.ready else node.why_not(),
        backends=node.state.backends,
        spaces={name: space.id for name, space in node.state.spaces.items()},
        queued_tokens=node.state.others + node.in_flight_tokens,
        tokens_per_s=node.state.tokens_per_s,
        in_flight=node.in_flight,
        in_flight_tokens=node.in_flight_tokens,
        restarts=max(0, node.state.restarts),
        leaving=node.leaving,
    )
