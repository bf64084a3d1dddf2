"""Keeps the backends and the proxy's lines in step: who is held, who is woken, who is put to sleep."""

import asyncio
from typing import TYPE_CHECKING

from launcher.backend import Backend, State
from launcher.config import BackendOptions
from launcher.demand import Tenant, decide
from launcher.lanes import Lane

if TYPE_CHECKING:
    from launcher.supervisor import Fleet

POLL_S = 0.25
RESIDENT = frozenset({State.STARTING, State.READY, State.BACKOFF})


async def attend(fleet: "Fleet") -> None:
    """Look at the lines and act, until cancelled. It starts from what is so each time: either side may start anew."""
    while True:
        await asyncio.sleep(POLL_S)
        if fleet.told or any(one.spec.on_demand for one in fleet.backends.values()):
            lanes = await fleet.lanes.look()
            for name, lane in lanes.items():
                if lane.held or name in fleet.held:  # again while it is held: those who wait learn how far it is
                    await fleet.agree(name)
            await _decide(fleet, lanes)


async def _decide(fleet: "Fleet", lanes: dict[str, Lane]) -> None:
    tenants = [
        _tenant(one, lanes[name], fleet.launch.settings.backend(name))
        for name, one in fleet.backends.items()
        if name in lanes
    ]
    decision = decide(tenants, fleet.launch.capacity)
    for name in decision.sleep:
        await fleet.sleep(name)
    for name in decision.wake:
        fleet.wake(name)


def _tenant(backend: Backend, lane: Lane, options: BackendOptions) -> Tenant:
    state = backend.status.state
    resident = state in RESIDENT
    return Tenant(
        name=backend.status.name,
        resident=resident,
        used=(lane.used or state is State.STARTING) and state is not State.FAILED,  # for that nobody makes room
        idle_s=lane.idle_s,
        up_s=backend.state_s if resident else 0.0,
        memory=backend.spec.memory,
        idle_limit_s=options.idle_s if backend.spec.on_demand else None,
    )


def progress(backend: Backend) -> str:
    """What a request is told that waited for this backend in vain."""
    status = backend.status
    if status.state is State.STARTING:
        return f"it is being loaded ({status.loaded:.0%})"
    return "it waits for memory that others use" if status.state is State.SLEEPING else "it is being restarted"
