"""The text of `GET /metrics`: what is counted as it happens, and what is read when it is asked for."""

from collections.abc import Iterable
from importlib.metadata import version

from prometheus_client import generate_latest

from proxy import metrics
from proxy.contract.admin import LauncherReport
from proxy.models.served_model import ServedModel
from proxy.monitoring.launcher_client import LauncherClient

DISTRIBUTION = "trillama"


class Scrape:
    """`restarts` are counted by the launcher; what of them was added to the counter is kept here."""

    def __init__(self, models: Iterable[ServedModel], launcher: LauncherClient, family: str) -> None:
        self._models = tuple(models)
        self._launcher = launcher
        self._restarts = dict[str, int]()
        metrics.BUILD_INFO.labels(version(DISTRIBUTION), family).set(1)

    async def text(self) -> bytes:
        """The metrics in Prometheus' text format. Those of processes are absent while no launcher answers."""
        self._read_models()
        self._read_processes(await self._launcher.report())
        return generate_latest(metrics.REGISTRY)

    def _read_models(self) -> None:
        metrics.BACKEND_INFO.clear()
        for model in self._models:
            made = model.provenance
            labels = (model.backend.name, made.space, made.quantization, made.digest, made.engine)
            metrics.BACKEND_INFO.labels(*labels).set(1)

    def _read_processes(self, report: LauncherReport | None) -> None:
        metrics.BACKEND_MEMORY.clear()
        for process in report.backends if report else ():
            new = process.restarts - self._restarts.get(process.name, 0)
            metrics.RESTARTS.labels(process.name).inc(max(0, new))
            self._restarts[process.name] = process.restarts
            if process.resident_bytes is not None:
                metrics.BACKEND_MEMORY.labels(process.name, "RAM", "resident").set(process.resident_bytes)
            for device, planned in process.planned_bytes.items():
                metrics.BACKEND_MEMORY.labels(process.name, device, "planned").set(planned)
