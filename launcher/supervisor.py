"""The set: three llama-servers and the proxy, from decided to gone."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from launcher import health
from launcher.backend import Backend, Report, State, Status
from launcher.config import runtime_base
from launcher.errors import ConfigError, StartError, cause_of
from launcher.front import Front
from launcher.launch import Launch
from launcher.logs import ChildLog
from launcher.runtime import private_folder

POLL_S = 0.05


class Fleet:
    """The running set: what it is doing, and what it can be told."""

    def __init__(self, launch: Launch, folder: Path, report: Report) -> None:
        self.launch = launch
        self.folder = folder
        self._report = report
        self._all_failed = asyncio.Event()
        self._changing = asyncio.Lock()
        self._front = Front(launch, folder)
        self.backends = {
            name: Backend(launch.spec(name, folder), log=ChildLog(launch.logs / f"{name}.log"), report=self._heard)
            for name in launch.models
        }

    async def serve(self, session: Callable[["Fleet"], Awaitable[None]]) -> None:
        """Run everything while the session lasts. The proxy goes first: its connections would keep a llama-server
        from ending (trap T6).
        """
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(backend.serve()) for backend in self.backends.values()]
            running.append(tasks.create_task(self._until_lost()))
            async with asyncio.TaskGroup() as front:
                proxy = front.create_task(self._front.serve())
                await session(self)
                proxy.cancel()
            for task in running:
                task.cancel()

    async def ready(self) -> None:
        """Wait until every backend answers through the proxy."""
        while not await self._answers():  # noqa: ASYNC110 # it is about other processes
            await asyncio.sleep(POLL_S)

    async def restart(self, name: str) -> None:
        """Start one backend again and wait until it is ready or has failed. Raises ConfigError for an unknown name."""
        if name not in self.backends:
            raise ConfigError(f"there is no backend {name}; there are {', '.join(self.backends)}")
        async with self._changing:
            self.backends[name].restart()
            await self.backends[name].settled()

    async def change(self, launch: Launch) -> None:
        """Go on with another launch of the same models: what it leaves as it is runs on, the rest is started again,
        one after the other.
        """
        async with self._changing:
            shorter = launch.settings.max_input_tokens < self.launch.settings.max_input_tokens
            self.launch = launch
            if shorter:  # the proxy must not send what a backend can no longer take
                await self._front.change(launch)
            for name, backend in self.backends.items():
                if (spec := launch.spec(name, self.folder)) != backend.spec:
                    backend.change(spec)
                    await backend.settled()
            await self._front.change(launch)

    def _heard(self, status: Status) -> None:
        self._report(status)
        if all(one.status.state is State.FAILED for one in self.backends.values()):
            self._all_failed.set()

    async def _until_lost(self) -> None:
        """Wait until no backend is served any more; always ends by raising."""
        await self._all_failed.wait()
        raise StartError("\n".join(f"{name}: gave up: {one.status.cause}" for name, one in self.backends.items()))

    async def _answers(self) -> bool:
        states = await health.backends_ready(self.launch.url)
        return states is not None and all(states.get(name) for name in self.backends)


async def serve(launch: Launch, report: Report, session: Callable[[Fleet], Awaitable[None]]) -> None:
    """Run the set while `session` lasts; it starts at once and may wait for `Fleet.ready`.

    A child that ends or goes wrong is started again; the others go on. Raises ConfigError or StartError if the proxy
    cannot start, StartError if every backend has failed for good, or what the session raises.
    """
    try:
        async with private_folder(launch.settings.host.runtime_dir or runtime_base()) as folder:
            await Fleet(launch, folder, report).serve(session)
    except ExceptionGroup as group:
        raise cause_of(group) from group
