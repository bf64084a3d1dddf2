"""The console's parts, and for how long they live."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict

from proxy.console.actions import Actions
from proxy.console.history import SpeedHistory
from proxy.console.state import ConsoleFacts, StateReader
from proxy.console.watcher import Watcher
from proxy.errors import Crowded
from proxy.models.served_model import ServedModel
from proxy.monitoring.launcher_client import LauncherClient
from proxy.telemetry.requests import RequestLog

MAX_WATCHERS = 32
MAX_OF_ONE_CLIENT = 8
RETRY_WATCHING_S = 5


class Console:
    """What the console's routes use."""

    def __init__(self, requests: RequestLog, state: StateReader, actions: Actions) -> None:
        self.requests = requests
        self.state = state
        self.actions = actions
        self._watchers = Counter[str]()

    async def document(self, watcher: Watcher) -> dict[str, object]:
        """The state, as far as the watcher may know it."""
        actions = [{**asdict(one), "error": watcher.told(one.error)} for one in self.actions.latest]
        state = await self.state.document(watcher)
        return {**state, "admin": watcher.operator, "sees_all": watcher.sees_all, "actions": actions}

    @contextmanager
    def watched(self, watcher: Watcher) -> Iterator[None]:
        """Count it for the duration of the block. Raises Crowded if there are too many, of all or of this client."""
        if self._watchers.total() >= MAX_WATCHERS or self._watchers[watcher.name] >= MAX_OF_ONE_CLIENT:
            raise Crowded("too many pages watch the console already", retry_after_s=RETRY_WATCHING_S)
        self._watchers[watcher.name] += 1
        try:
            yield
        finally:
            self._watchers -= Counter([watcher.name])  # forgets those of whom none is left


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
