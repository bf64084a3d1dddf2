"""The console's one document: what is served, each backend with its process, who sends, how long it takes."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version

from proxy import metrics
from proxy.console.history import STEP_S, SpeedHistory
from proxy.console.watcher import Watcher
from proxy.contract.admin import BackendProcess, LauncherReport
from proxy.contract.family import Family
from proxy.embedding.tasks import TaskTable
from proxy.models.served_model import ServedModel
from proxy.monitoring.launcher_client import LauncherClient
from proxy.monitoring.scrape import DISTRIBUTION
from proxy.telemetry.requests import RequestLog

STARTED_AT = time.time()
SAME_S = 0.5  # for so long all watchers are shown the same report of the launcher


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleFacts:
    """What does not change while the proxy runs. `input_tokens` and `items` are limits of one request."""

    family: Family
    table: TaskTable
    input_tokens: int
    items: int
    notice: str
    cache: bool
    multivector: bool
    images: bool
    needs_key: bool
    has_admin_keys: bool


class StateReader:
    """Reads the state when it is asked for."""

    def __init__(
        self,
        facts: ConsoleFacts,
        models: Mapping[str, ServedModel],
        launcher: LauncherClient,
        requests: RequestLog,
        history: SpeedHistory,
    ) -> None:
        self.models = models
        self._facts = facts
        self._launcher = launcher
        self._requests = requests
        self._history = history
        self._asking = asyncio.Lock()
        self._asked = float("-inf")
        self._report: LauncherReport | None = None

    async def document(self, watcher: Watcher) -> dict[str, object]:
        """The whole state, for JSON."""
        report, clients = await self.report(), self._requests.clients(watcher.shown_client)
        processes = {one.name: _told(one, watcher) for one in report.backends} if report else {}
        return {
            "time": time.time(),
            "started": STARTED_AT,
            "version": version(DISTRIBUTION),
            "launcher": report is not None,
            **_served(self._facts),
            "backends": [self._backend(name, model, processes.get(name)) for name, model in self.models.items()],
            "step_s": STEP_S,
            "cache": _cache() if self._facts.cache else None,
            "requests": self._requests.count,
            "routes": self._requests.routes(),
            "clients": [{"client": name, **asdict(one)} for name, one in clients.items()],
        }

    async def report(self) -> LauncherReport | None:
        """What the launcher says about the processes; None without a launcher."""
        async with self._asking:
            now = asyncio.get_running_loop().time()
            if now - self._asked > SAME_S:
                self._report = await self._launcher.report()
                self._asked = now
            return self._report

    def _backend(self, name: str, model: ServedModel, process: BackendProcess | None) -> dict[str, object]:
        load, made, settings = model.report(), model.provenance, model.backend.settings
        suspects, now = model.dispatcher.suspects, asyncio.get_running_loop().time()
        lanes = model.dispatcher.queue.lanes
        tasks = [task for task, route in self._facts.table.tasks.items() if route.backend == name]
        file = process.model if process else settings.model_file
        return {
            "name": name,
            "tasks": tasks,
            "file": "" if file is None else str(file),
            **asdict(load),
            "made": made,
            "slots": settings.slots,
            "batch_tokens": settings.batch_tokens,
            "lanes": {lane: waiting._asdict() for lane, waiting in lanes.items()},
            "history": self._history.points(name),
            "quarantined": suspects.quarantined(now),
            "process": process.model_dump(exclude={"model", "slots", "batch_tokens", "name"}) if process else None,
        }


def _told(process: BackendProcess, watcher: Watcher) -> BackendProcess:
    return process.model_copy(update={"cause": watcher.told(process.cause)})


def _served(facts: ConsoleFacts) -> dict[str, object]:
    return {
        "family": facts.family.name,
        "hugging_face_id": facts.family.hugging_face_id,
        "licence": facts.family.licence,
        "notice": facts.notice,
        "dimensions": facts.family.dimensions,
        "trained_dimensions": facts.family.trained_dimensions,
        "input_tokens": facts.input_tokens,
        "items": facts.items,
        "multivector": facts.multivector,
        "images": facts.images,
        "needs_key": facts.needs_key,
        "has_admin_keys": facts.has_admin_keys,
        "default_task": facts.table.route(None, None).task,
        "tasks": [
            {"name": name, "backend": route.backend, "prefix": route.prefix, "instruction": route.instruction}
            for name, route in facts.table.tasks.items()
        ],
    }


def _cache() -> dict[str, int]:
    """How many texts were looked up, by result."""
    samples = [sample for metric in metrics.CACHED.collect() for sample in metric.samples]
    return {one.labels["result"]: int(one.value) for one in samples if one.name.endswith("_total")}
