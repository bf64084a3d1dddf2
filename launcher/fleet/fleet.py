"""The running set: llama-servers and the proxy, from a decided deployment to their end."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from launcher.errors import ConfigError, EngineError, StartError, cause_of
from launcher.fleet.reconcile import progress, reconcile
from launcher.processes.child_log import ChildLog
from launcher.processes.runtime_folder import private_folder
from launcher.proxies.admin import ProxyAdmins
from launcher.proxies.handover import ProxyHandover
from launcher.settings.folders import runtime_base
from launcher.supervision import probes
from launcher.supervision.backend import Backend
from launcher.supervision.deployment import Deployment
from launcher.supervision.states import BackendState, ReportStatus, Status

_POLL_S = 0.05
HANGS_S = 1.0  # /health is answered within milliseconds beside the largest batch


class Fleet:
    """The running set: its state, and what it can be told to do.

    `paused` are the backends that the proxy must send nothing to, because they sleep or are restarted on purpose, and
    `paused_by_operator` those of which an operator said so; `maybe_paused` are those that the proxy may still be
    pausing. `_awaiting_restart` are those whose new settings the proxy has and they have not: it started with them
    paused, and they stay so until they are restarted.
    """

    def __init__(self, deployment: Deployment, folder: Path, report: ReportStatus) -> None:
        self.deployment = deployment
        self.folder = folder
        self._report = report
        self._all_failed = asyncio.Event()
        self._changing = asyncio.Lock()
        self._restarting = {name: asyncio.Lock() for name in deployment.processes}
        self._syncing = {name: asyncio.Lock() for name in deployment.processes}
        self.paused = {name for name in deployment.processes if deployment.on_demand(name)}
        self.paused_by_operator = set[str]()
        self.maybe_paused = set(self.paused)
        self._awaiting_restart = set[str]()
        self._proxy = ProxyHandover(
            deployment, folder, lambda: self.paused | self.paused_by_operator | self._awaiting_restart
        )
        self.proxy_admins = ProxyAdmins(lambda: self._proxy.admins)
        self.backends = {
            name: Backend(
                deployment.spec(name, folder), log=ChildLog(deployment.logs / f"{name}.log"), report=self._on_status
            )
            for name in deployment.processes
        }

    async def serve(self, session: Callable[["Fleet"], Awaitable[None]]) -> None:
        """Run everything for as long as the session lasts.

        The proxy ends first: its connections would keep a llama-server from ending (trap T6).
        """
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(backend.serve()) for backend in self.backends.values()]
            running += [tasks.create_task(reconcile(self)), tasks.create_task(self._until_lost())]
            async with asyncio.TaskGroup() as session_tasks:
                proxy = session_tasks.create_task(self._proxy.serve())
                await session(self)
                proxy.cancel()
            for task in running:
                task.cancel()

    @property
    def memory(self) -> dict[str, int]:
        """The bytes by device that the backends which run now are planned to take."""
        resident = [one.spec.memory for one in self.backends.values() if one.status.pid is not None]
        return dict(sum(map(Counter, resident), Counter()))

    async def ready(self) -> None:
        """Wait until every backend answers through the proxy, except failed ones as long as another answers."""
        while not await self._answers():  # noqa: ASYNC110 # other processes set no event
            await asyncio.sleep(_POLL_S)

    @property
    def troubled(self) -> list[Status]:
        """The backends that have failed and will be tried again."""
        found = [one.status for one in self.backends.values()]
        return [status for status in found if status.state in (BackendState.BACKOFF, BackendState.FAILED)]

    async def restart(self, name: str) -> None:
        """Restart one backend, until it is ready or has failed. Raises ConfigError for an unknown name."""
        self._check_known(name)
        await self._restart_paused(name, self.backends[name].restart)

    async def pause(self, name: str) -> None:
        """Send a backend nothing more until `resume`; its requests wait. Raises ConfigError for an unknown name.

        Returns once none of its batches is in flight.
        """
        self._check_known(name)
        self.paused_by_operator.add(name)
        await self.sync_pause(name)

    async def resume(self, name: str) -> None:
        """Undo `pause`. Raises ConfigError for an unknown name."""
        self._check_known(name)
        self.paused_by_operator.discard(name)
        await self.sync_pause(name)

    def must_pause(self, name: str) -> bool:
        """Whether the proxy must send it nothing now."""
        return name in self.paused or name in self.paused_by_operator

    def wake(self, name: str) -> None:
        """Start a sleeping backend."""
        self.backends[name].wake()

    async def sleep(self, name: str) -> None:
        """End a backend on demand, once none of its batches is in flight."""
        await self._pause(name)
        self.backends[name].sleep()

    async def change(self, deployment: Deployment) -> None:
        """Serve another deployment of the same models: backends whose spec differs are restarted, one after the other.

        Raises ConfigError or StartError, with nothing changed, if a proxy does not come up with the new settings.
        """
        async with self._changing:
            specs = {name: deployment.spec(name, self.folder) for name in self.backends}
            restarted = [name for name, spec in specs.items() if spec != self.backends[name].spec]
            self._awaiting_restart = {name for name in restarted if self._must_wait(name, deployment)}
            try:
                await self._proxy.change(deployment)
                self.deployment = deployment
                self.maybe_paused |= self.backends.keys()
                if restarted:  # the old proxy's requests need the llama-servers as they were
                    await self._proxy.finished(deployment.settings.host.proxy.start_wait_s / 2)
            except BaseException:  # also a cancellation: the restarts will not come
                self._awaiting_restart = set()
                raise
            for name in restarted:
                await self._restart_paused(name, partial(self.backends[name].change, specs[name]))
            for name in specs.keys() - set(restarted):
                self.backends[name].change(specs[name])

    def _check_known(self, name: str) -> None:
        if name not in self.backends:
            raise ConfigError(f"there is no backend {name}; there are {', '.join(self.backends)}")

    def _must_wait(self, name: str, deployment: Deployment) -> bool:
        """Whether the new proxy must not use the backend before its restart.

        Its vectors would be labelled as another file's, its texts would be too long, or it would get images.
        """
        now = self.deployment
        longer = deployment.settings.max_input_tokens > now.settings.max_input_tokens
        return longer or deployment.processes[name] != now.processes[name] or deployment.mmproj != now.mmproj

    async def _restart_paused(self, name: str, begin: Callable[[], None]) -> None:
        """Restart one backend while its requests wait, until it is ready or has failed."""
        async with self._restarting[name]:
            self._awaiting_restart.discard(name)
            await self._pause(name)
            begin()
            await self.backends[name].settled()
            await self.sync_pause(name)

    async def sync_pause(self, name: str) -> None:
        """Make the proxy pause or resume a backend as it should: it may have been restarted and have forgotten."""
        if name in self._awaiting_restart:
            return
        async with self._syncing[name]:
            self.maybe_paused.add(name)
            if self.must_pause(name):
                by_operator = name in self.paused_by_operator
                reason = "an operator has paused it" if by_operator else progress(self.backends[name])
                await self.proxy_admins.pause(name, reason)
            elif await self.proxy_admins.resume(name):
                self.maybe_paused.discard(name)

    async def _pause(self, name: str) -> None:
        """Pause a backend until none of its batches is in flight, or it hangs, so that they would never end."""
        self.paused.add(name)
        async with asyncio.TaskGroup() as tasks:
            waiting = [tasks.create_task(self.sync_pause(name)), tasks.create_task(self._until_it_hangs(name))]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in waiting:
                task.cancel()

    async def _until_it_hangs(self, name: str) -> None:
        answers = True
        while answers:
            await asyncio.sleep(HANGS_S)
            answers = await probes.backend_up(self.backends[name].spec.placement.socket)

    def _on_status(self, status: Status) -> None:
        self._unpause(status)
        self._report(status)
        if all(self.backends[name].status.state is BackendState.FAILED for name in self.deployment.models):
            self._all_failed.set()

    def _unpause(self, status: Status) -> None:
        if status.state in (BackendState.READY, BackendState.BACKOFF, BackendState.FAILED):
            self.paused.discard(status.name)

    async def _until_lost(self) -> None:
        """Wait until every model has failed; always ends by raising."""
        await self._all_failed.wait()
        models = [self.backends[name] for name in self.deployment.models]
        kind = EngineError if all(one.illegal_instruction for one in models) else StartError
        raise kind("\n".join(f"{name}: gave up: {one.status.cause}" for name, one in self.backends.items()))

    async def _answers(self) -> bool:
        states = await probes.backends_ready(self.deployment.url)
        if states is None or not any(states.get(name) for name in self.deployment.models):
            return False
        troubled = {status.name for status in self.troubled}
        return all(states.get(name) or name in troubled for name in self.backends)


async def serve(deployment: Deployment, report: ReportStatus, session: Callable[[Fleet], Awaitable[None]]) -> None:
    """Run the set for as long as `session` lasts; it starts immediately and may wait for `Fleet.ready`.

    A child that ends or goes wrong is restarted while the others serve. Raises ConfigError or StartError if the proxy
    cannot start, StartError if every backend has failed for good (EngineError: because this processor cannot run it),
    or what the session raises.
    """
    try:
        async with private_folder(deployment.settings.host.runtime_dir or runtime_base()) as folder:
            await Fleet(deployment, folder, report).serve(session)
    except ExceptionGroup as group:
        raise cause_of(group) from group
