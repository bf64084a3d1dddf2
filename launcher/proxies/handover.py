"""Handover between proxies: when the settings change, the next one takes over, and the loaded models stay loaded."""

import asyncio
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

from launcher.errors import LauncherError, StartError
from launcher.proxies.admin import ProxyAdmin
from launcher.proxies.process import ProxyProcess
from launcher.supervision.deployment import Deployment

_POLL_S = 0.05
VERIFY_S = 120.0  # for the new proxy to read the vocabularies and to verify every backend

Paused = Callable[[], Collection[str]]


class ProxyHandover:
    """Keeps a proxy running on the deployment's listening socket, with its files in `folder`.

    `paused` returns the backends that a proxy has to start with paused.
    """

    def __init__(self, deployment: Deployment, folder: Path, paused: Paused) -> None:
        self._folder = folder
        self._paused = paused
        self._started = 1
        self._current = ProxyProcess(deployment, folder, self._started, paused)
        self._leaving: ProxyProcess | None = None
        self._tasks = asyncio.TaskGroup()
        self._keeping: dict[ProxyProcess, asyncio.Task[None]] = {}

    @property
    def admins(self) -> list[ProxyAdmin]:
        """Of the serving proxy, and of the one that is finishing, if there is one."""
        return [self._current.admin, *([self._leaving.admin] if self._leaving else [])]

    async def serve(self) -> None:
        """Keep it running until cancelled. Raises ConfigError or StartError if restarting it would not help."""
        self._current.accepting = True
        async with self._tasks:
            self._keep(self._current)
            await asyncio.Event().wait()

    async def change(self, deployment: Deployment) -> None:
        """Hand over to a proxy with that deployment's settings, if they differ.

        The new one serves once it has verified every backend that is ready in the old one. From then on the old one
        takes no more connections, and answers the requests it has. Raises StartError or ConfigError if the new one does
        not come up: the old one keeps serving.
        """
        if self._current.serves(deployment):
            self._current.deployment = deployment
            return
        await self.finished()
        self._started += 1
        new, old = ProxyProcess(deployment, self._folder, self._started, self._paused), self._current
        keeping = self._keep(new)
        try:
            await self._until_verified(new, old)
            await new.accept()
        except BaseException:
            await _end(keeping)
            raise
        self._current, self._leaving = new, old
        await old.finish()

    async def finished(self, within_s: float | None = None) -> None:
        """Wait until the previous proxy has answered all its requests, then end it.

        What it has left is refused after `within_s`, or after the longest time that a request may take.
        """
        if old := self._leaving:
            longest = old.deployment.settings.host.proxy.request_timeout_s
            with suppress(TimeoutError):
                async with asyncio.timeout(longest if within_s is None else min(within_s, longest)):
                    await old.ended.wait()
            await _end(self._keeping[old])
            self._leaving = None

    def _keep(self, proxy: ProxyProcess) -> asyncio.Task[None]:
        self._keeping = {one: task for one, task in self._keeping.items() if not task.done()}
        self._keeping[proxy] = task = self._tasks.create_task(self._kept(proxy))
        return task

    async def _kept(self, proxy: ProxyProcess) -> None:
        try:
            await proxy.keep()
        except LauncherError:
            if proxy is self._current:
                raise
        # one that never served is reported by `_until_verified`; one that has finished leaves nothing
        if proxy is self._leaving:
            self._leaving = None

    async def _until_verified(self, new: ProxyProcess, old: ProxyProcess) -> None:
        try:
            async with asyncio.timeout(VERIFY_S):
                while not await _has_caught_up(new, old):
                    if new.ended.is_set():
                        raise StartError(f"the new proxy did not take over: {new.fault}")
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise StartError(f"the new proxy did not get ready within {VERIFY_S:g} s") from None


async def _has_caught_up(new: ProxyProcess, old: ProxyProcess) -> bool:
    """Whether the new one serves every backend that the old one does, apart from those paused on purpose."""
    queues, before = await new.queues(), await old.queues()
    ready = {name for name, queue in queues.items() if queue.state in ("ready", "held")}
    return bool(queues) and {name for name, queue in before.items() if queue.state == "ready"} <= ready


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError, LauncherError):
        await task
