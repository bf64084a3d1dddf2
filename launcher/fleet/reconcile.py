"""Reconciliation loop: matches the proxy's paused queues to the backends, starts requested models, evicts idle ones."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Protocol

from launcher.fleet.eviction import Eviction, Resident, plan_eviction
from launcher.proxies.admin import ProxyAdmins, QueueState
from launcher.settings.config import BackendOptions
from launcher.supervision.backend import Backend
from launcher.supervision.deployment import Deployment
from launcher.supervision.states import BackendState

_POLL_S = 0.25
Act = Callable[[str], Coroutine[None, None, None]]
Do = Callable[[str, Act], None]
RESIDENT = frozenset({BackendState.STARTING, BackendState.READY, BackendState.BACKOFF})


class Reconcilable(Protocol):
    """What this loop needs of a `Fleet`, which says what each of these means."""

    deployment: Deployment
    backends: dict[str, Backend]
    proxy_admins: ProxyAdmins
    maybe_paused: set[str]

    def must_pause(self, name: str) -> bool: ...

    async def sync_pause(self, name: str) -> None: ...

    async def sleep(self, name: str) -> None: ...

    def wake(self, name: str) -> None: ...


async def reconcile(fleet: Reconcilable) -> None:
    """Compare queues and backends and act, until cancelled. Nothing is remembered: either side may be restarted.

    Actions on one backend do not wait for another: one that hangs may take half a minute to be paused.
    """
    async with asyncio.TaskGroup() as tasks:
        running: dict[str, asyncio.Task[None]] = {}

        def do(name: str, act: Act) -> None:
            if name not in running or running[name].done():
                running[name] = tasks.create_task(act(name))

        while True:
            await asyncio.sleep(_POLL_S)
            if fleet.maybe_paused or any(one.spec.on_demand for one in fleet.backends.values()):
                _act(fleet, await fleet.proxy_admins.queues(), do)


def _act(fleet: Reconcilable, queues: dict[str, QueueState], do: Do) -> None:
    for name, queue in queues.items():
        if queue.paused or fleet.must_pause(name):  # again while it is paused: waiting requests report its progress
            do(name, fleet.sync_pause)
        else:
            fleet.maybe_paused.discard(name)
    decision = _decision(fleet, queues)
    for name in decision.sleep:
        do(name, fleet.sleep)
    for name in decision.wake:
        fleet.wake(name)


def _decision(fleet: Reconcilable, queues: dict[str, QueueState]) -> Eviction:
    residents = [
        _resident(one, queues[name], fleet.deployment.settings.backend(name))
        for name, one in fleet.backends.items()
        if name in queues
    ]
    return plan_eviction(residents, fleet.deployment.capacity)


def _resident(backend: Backend, queue: QueueState, options: BackendOptions) -> Resident:
    state = backend.status.state
    resident = state in RESIDENT
    return Resident(
        name=backend.status.name,
        resident=resident,
        used=(queue.used or state is BackendState.STARTING)
        and state is not BackendState.FAILED,  # no other backend makes room for a failed one
        idle_s=queue.idle_s,
        up_s=backend.state_s if resident else 0.0,
        memory=backend.spec.memory,
        idle_limit_s=options.idle_s if backend.spec.on_demand else None,
    )


def progress(backend: Backend) -> str:
    """The reason given to a request that timed out while it waited for this backend."""
    status = backend.status
    if status.state is BackendState.STARTING:
        return f"it is being loaded ({status.loaded:.0%})"
    return "it waits for memory that others use" if status.state is BackendState.SLEEPING else "it is being restarted"
