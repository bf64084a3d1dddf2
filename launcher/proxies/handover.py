"""The proxies: one serves, and hands over to the next when its settings change; the loaded models do not notice."""

import asyncio
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

from launcher.errors import LauncherError, StartError
from launcher.proxies.admin import ProxyAdmin
from launcher.proxies.process import ProxyProcess
from launcher.supervision.deployment import Deployment

POLL_S = 0.05
VERIFY_S = 120.0  # for the new proxy to read the vocabularies, and to look at every backend

Held = Callable[[], Collection[str]]


class ProxyHandover:
    """Keeps a proxy running on the launch's listening socket, with the files that it writes into `folder`.

    `held` tells which backends a proxy has to begin with paused.
    """

    def __init__(self, deployment: Deployment, folder: Path, paused: Held) -> None:
        self._folder = folder
        self._held = paused
        self._started = 1
        self._current = ProxyProcess(deployment, folder, self._started, paused)
        self._leaving: ProxyProcess | None = None
        self._tasks = asyncio.TaskGroup()
        self._keeping: dict[ProxyProcess, asyncio.Task[None]] = {}

    @property
    def admins(self) -> list[ProxyAdmin]:
        """Of the proxy that serves, and of the one that finishes, if there is one."""
        return [self._current.admin, *([self._leaving.admin] if self._leaving else [])]

    async def serve(self) -> None:
        """Keep it running until cancelled. Raises ConfigError or StartError where starting it again would not help."""
        self._current.accepting = True
        async with self._tasks:
            self._keep(self._current)
            await asyncio.Event().wait()

    async def change(self, deployment: Deployment) -> None:
        """Hand over to a proxy with the settings of that launch, if they are others.

        It serves once it has verified the backends as far as the old one has; that one takes no more connections then,
        and answers all that has come. Raises StartError or ConfigError if the new one does not come up: the old one
        serves on.
        """
        if self._current.serves(deployment):
            self._current.deployment = deployment
            return
        await self.alone()
        self._started += 1
        new, old = ProxyProcess(deployment, self._folder, self._started, self._held), self._current
        keeping = self._keep(new)
        try:
            await self._until_verified(new, old)
            await new.accept()
        except BaseException:
            await _end(keeping)
            raise
        self._current, self._leaving = new, old
        await old.finish()

    async def alone(self, within_s: float | None = None) -> None:
        """Wait until the proxy before this one has answered all; after that time, and in the end after the longest
        that a request may take, what it has left is refused.
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
        # one that never served is missed by who waits for it; one that has finished leaves nothing
        if proxy is self._leaving:
            self._leaving = None

    async def _until_verified(self, new: ProxyProcess, old: ProxyProcess) -> None:
        try:
            async with asyncio.timeout(VERIFY_S):
                while not await _is_as_far(new, old):
                    if new.ended.is_set():
                        raise StartError(f"the new one did not take over: {new.fault}")
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise StartError(f"the new proxy did not get ready within {VERIFY_S:g} s") from None


async def _is_as_far(new: ProxyProcess, old: ProxyProcess) -> bool:
    """Whether the new one serves all that the old one does, but for what is paused on purpose."""
    lanes, before = await new.look(), await old.look()
    ready = {name for name, lane in lanes.items() if lane.state in ("ready", "held")}
    return bool(lanes) and {name for name, lane in before.items() if lane.state == "ready"} <= ready


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError, LauncherError):
        await task
