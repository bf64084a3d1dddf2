"""The console's parts, and for how long they live."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager

from proxy.console.actions import Actions
from proxy.console.history import SpeedHistory
from proxy.console.requests import RequestLog
from proxy.console.state import ConsoleFacts, StateReader
from proxy.errors import Crowded
from proxy.models.served_model import ServedModel
from proxy.monitoring.launcher_client import LauncherClient

MAX_WATCHERS = 32
RETRY_WATCHING_S = 5


class Console:
    """What the console's routes use."""

    def __init__(self, requests: RequestLog, state: StateReader, actions: Actions) -> None:
        self.requests = requests
        self.state = state
        self.actions = actions
        self._watchers = 0

    async def document(self, *, admin: bool) -> dict[str, object]:
        """The state, for a watcher who may act or not."""
        return {**await self.state.document(), "admin": admin, "actions": list(self.actions.latest)}

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Count a watcher for the duration of the block. Raises Crowded if there are too many."""
        if self._watchers >= MAX_WATCHERS:
            raise Crowded("too many pages watch the console already", retry_after_s=RETRY_WATCHING_S)
        self._watchers += 1
        try:
            yield
        finally:
            self._watchers -= 1


@asynccontextmanager
async def running_console(
    facts: ConsoleFacts, models: Mapping[str, ServedModel], launcher: LauncherClient
) -> AsyncIterator[Console]:
    """A console for the duration of the block."""
    requests, history = RequestLog(), SpeedHistory(models)
    async with asyncio.TaskGroup() as tasks:
        actions, recording = Actions(launcher, tasks), tasks.create_task(history.record())
        try:
            yield Console(requests, StateReader(facts, models, launcher, requests, history), actions)
        finally:
            recording.cancel()
            actions.cancel()
