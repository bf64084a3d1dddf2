"""Keeps the backends and the proxy's lines in step: who is held, who is woken, who is put to sleep."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING

from launcher.fleet.eviction import Eviction, Resident, plan_eviction
from launcher.proxies.admin import QueueState
from launcher.settings.config import BackendOptions
from launcher.supervision.backend import Backend, BackendState

if TYPE_CHECKING:
    from launcher.fleet.fleet import Fleet

POLL_S = 0.25
Act = Callable[[str], Coroutine[None, None, None]]
Do = Callable[[str, Act], None]
RESIDENT = frozenset({BackendState.STARTING, BackendState.READY, BackendState.BACKOFF})


async def reconcile(fleet: "Fleet") -> None:
    """Look at the queues and act, until cancelled. It starts from what is so each time: either side may be restarted.

    What is done for one backend does not wait for another: one that hangs may take half a minute to be paused.
    """
    async with asyncio.TaskGroup() as tasks:
        doing: dict[str, asyncio.Task[None]] = {}

        def do(name: str, act: Act) -> None:
            if name not in doing or doing[name].done():
                doing[name] = tasks.create_task(act(name))

        while True:
            await asyncio.sleep(POLL_S)
            if fleet.maybe_paused or any(one.spec.on_demand for one in fleet.backends.values()):
                _act(fleet, await fleet.lanes.look(), do)


def _act(fleet: "Fleet", lanes: dict[str, QueueState], do: Do) -> None:
    for name, lane in lanes.items():
        if lane.paused or name in fleet.paused:  # again while it is held: those who wait learn how far it is
            do(name, fleet.sync_pause)
        else:
            fleet.maybe_paused.discard(name)
    decision = _decision(fleet, lanes)
    for name in decision.sleep:
        do(name, fleet.sleep)
    for name in decision.wake:
        fleet.wake(name)


def _decision(fleet: "Fleet", lanes: dict[str, QueueState]) -> Eviction:
    residents = [
        _tenant(one, lanes[name], fleet.deployment.settings.backend(name))
        for name, one in fleet.backends.items()
        if name in lanes
    ]
    return plan_eviction(residents, fleet.deployment.capacity)


def _tenant(backend: Backend, lane: QueueState, options: BackendOptions) -> Resident:
    state = backend.status.state
    resident = state in RESIDENT
    return Resident(
        name=backend.status.name,
        resident=resident,
        used=(lane.used or state is BackendState.STARTING)
        and state is not BackendState.FAILED,  # for that nobody makes room
        idle_s=lane.idle_s,
        up_s=backend.state_s if resident else 0.0,
        memory=backend.spec.memory,
        idle_limit_s=options.idle_s if backend.spec.on_demand else None,
    )


def progress(backend: Backend) -> str:
    """What a request is told that waited for this backend in vain."""
    status = backend.status
    if status.state is BackendState.STARTING:
        return f"it is being loaded ({status.loaded:.0%})"
    return "it waits for memory that others use" if status.state is BackendState.SLEEPING else "it is being restarted"
