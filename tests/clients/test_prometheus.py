"""A real Prometheus reads a running demo: every panel of the dashboard has data, every alert fires when it should."""

import asyncio
import math
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import aiohttp
import orjson
import pytest

from launcher.processes.child import running
from tests.clients.environments import DebianPackage
from tests.support.servers.serve import quick_engine, trillama_serve
from tests.support.servers.stack import unused_port

CONFIGS = Path(__file__).parents[2] / "configs"
RULES, SETTINGS = (CONFIGS / "prometheus" / name for name in ("alerts.yml", "prometheus.yml"))
DASHBOARD = CONFIGS / "grafana" / "trillama.json"
ALERT_TESTS = Path(__file__).with_name("alerts.yml")
VARIABLES = {"$__rate_interval": "20s", "$instance": ".*", "$backend": ".*"}
DATA_TIMEOUT_S = 60.0

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(
        not (shutil.which("apt-get") and shutil.which("dpkg")), reason="Prometheus is fetched as Debian's package"
    ),
]


class Panel(NamedTuple):
    title: str
    query: str


@pytest.fixture(scope="module")
def programs() -> Path:
    """The folder with `prometheus` and `promtool`."""
    return DebianPackage("prometheus").program("prometheus").parent


def panels() -> Iterator[Panel]:
    """Each query of the dashboard as Grafana would send it for all hosts and backends."""
    for panel in orjson.loads(DASHBOARD.read_bytes())["panels"]:
        for target in panel.get("targets", ()):
            query = target["expr"]
            for variable, value in VARIABLES.items():
                query = query.replace(variable, value)
            yield Panel(panel["title"], query)


def test_each_alert_fires_on_its_condition_and_on_nothing_else(programs: Path, tmp_path: Path) -> None:
    tests = tmp_path / "tests.yml"
    tests.write_text(ALERT_TESTS.read_text(encoding="utf-8").replace("RULES", str(RULES)), encoding="utf-8")
    done = subprocess.run(
        (programs / "promtool", "test", "rules", tests), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    alerts = set(re.findall(r"alert: (\w+)", RULES.read_text(encoding="utf-8")))
    silent, firing = (
        set(re.findall(pattern, ALERT_TESTS.read_text(encoding="utf-8")))
        for pattern in (r"alertname: (\w+)", r'alertname="(\w+)"')
    )
    assert silent == firing == alerts


async def test_every_panel_has_data(programs: Path, tmp_path: Path) -> None:
    async with (
        trillama_serve({"engine": quick_engine()}, arguments=("--demo", "--tiny")) as serve,
        prometheus(programs, serve.url, tmp_path) as url,
        aiohttp.ClientSession() as session,
        asyncio.TaskGroup() as tasks,
    ):
        traffic = tasks.create_task(keep_embedding(session, serve.url))
        for panel in panels():
            await until_data(session, url, panel)
        assert await result_of(session, url, "ALERTS") == []
        traffic.cancel()


@asynccontextmanager
async def prometheus(programs: Path, target: str, folder: Path) -> AsyncIterator[str]:
    """A Prometheus with the settings of `configs/prometheus`, but a scrape each second; its URL."""
    address = f"127.0.0.1:{unused_port()}"
    shutil.copy(RULES, folder)
    settings = SETTINGS.read_text(encoding="utf-8").replace("15s", "1s")
    changed = settings.replace("127.0.0.1:8080", target.removeprefix("http://"))
    assert changed != settings
    (folder / "prometheus.yml").write_text(changed, encoding="utf-8")
    argv = (
        str(programs / "prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
    )
    async with running(argv, env={"PATH": ""}, grace_s=5, output=folder / "prometheus.log"):
        yield f"http://{address}"


async def keep_embedding(session: aiohttp.ClientSession, url: str) -> None:
    """Send requests of one text and of many to all backends, until cancelled."""
    number = 0
    while True:
        for task in ("retrieval.query", "code.passage", "text-matching"):
            number += 1
            texts = [f"text {number} {index}" for index in range(1 if number % 2 else 64)]
            body = {"model": "jina-embeddings-v4", "task": task, "input": texts}
            async with session.post(f"{url}/v1/embeddings", json=body) as response:
                assert response.status == 200, await response.text()
        await asyncio.sleep(0.1)


async def until_data(session: aiohttp.ClientSession, url: str, panel: Panel) -> None:
    """Wait until the panel's query has numbers; fails with what it had last."""
    found: list[Mapping[str, object]] = []
    try:
        async with asyncio.timeout(DATA_TIMEOUT_S):
            while not (found := await result_of(session, url, panel.query)) or not all(map(is_number, found)):
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise AssertionError(f"{panel.title}: {panel.query} has {found}") from None


def is_number(sample: Mapping[str, object]) -> bool:
    """Whether a sample of Prometheus' answer has a finite value."""
    match sample["value"]:
        case [_, str(value)]:
            return math.isfinite(float(value))
    return False


async def result_of(session: aiohttp.ClientSession, url: str, query: str) -> list[Mapping[str, object]]:
    """The query's result now; empty while Prometheus is starting. Fails if the query is wrong."""
    try:
        async with session.get(f"{url}/api/v1/query", params={"query": query}) as response:
            body = orjson.loads(await response.read())
    except aiohttp.ClientConnectionError:
        return []
    except orjson.JSONDecodeError:  # "Service Unavailable" while it starts
        return []
    assert body["status"] == "success", body
    found: list[Mapping[str, object]] = body["data"]["result"]
    return found
