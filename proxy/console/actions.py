"""What an operator can make the launcher do from the console; each takes as long as it takes, in the background."""

import asyncio
import logging
import time
from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import quote

from proxy.monitoring.launcher_client import LauncherClient

log = logging.getLogger(__name__)

KEPT_ACTIONS = 20


class Verb(StrEnum):
    RESTART = "restart"
    PAUSE = "pause"
    RESUME = "resume"
    RELOAD = "reload"


@dataclass(slots=True)
class Action:
    """One thing that was asked of the launcher. `error` says why it was not done; `backend` is empty for a reload."""

    verb: Verb
    backend: str
    at: float
    done: bool = False
    error: str = ""


class Actions:
    """Runs them in `tasks`. The same action is not begun twice at a time."""

    def __init__(self, launcher: LauncherClient, tasks: asyncio.TaskGroup) -> None:
        self._launcher = launcher
        self._tasks = tasks
        self._running = set[asyncio.Task[None]]()
        self.latest = deque[Action](maxlen=KEPT_ACTIONS)

    def begin(self, verb: Verb, backend: str = "") -> Action:
        """Begin it, or return the one that is running."""
        for one in self.latest:
            if (one.verb, one.backend, one.done) == (verb, backend, False):
                return one
        action = Action(verb, backend, time.time())
        self.latest.append(action)
        task = self._tasks.create_task(self._run(action))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return action

    def cancel(self) -> None:
        """Wait for none of them any more; the launcher finishes what it has begun."""
        for task in self._running:
            task.cancel()

    async def _run(self, action: Action) -> None:
        named = f"{action.verb} {action.backend}".strip()
        log.info("console: %s", named)
        path = f"/backends/{quote(action.backend, safe='')}/{action.verb}" if action.backend else f"/{action.verb}"
        action.error = await self._launcher.tell(path)
        action.done = True
        if action.error:
            log.warning("console: %s failed: %s", named, action.error)
