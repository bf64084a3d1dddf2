"""A cluster as a user has it: `trillama cluster head` and two hosts that joined, all on this machine."""

import asyncio
import io
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import orjson
import psutil
import tomli_w

from launcher.cluster.client import ask_cluster
from launcher.errors import NotRunning
from tests.support.servers.stack import unused_port

START_S = 120.0
POLL_S = 0.1
_CLUSTERS = itertools.count()
HOSTS = ("127.0.0.2", "127.0.0.3")


@dataclass(slots=True, kw_only=True)
class LocalCluster:
    """A running cluster: its folder, its endpoint, and the processes of its commands by name."""

    folder: Path
    url: str
    programs: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `trillama cluster ARGUMENTS` on the head's host."""
        return subprocess.run(
            (*TRILLAMA, "cluster", *arguments),
            env=environment(self.folder, "head"),
            capture_output=True,
            text=True,
            timeout=START_S,
            check=False,
        )

    def status(self) -> dict[str, object]:
        """What `status --json` prints; empty while the head does not answer. In a thread: a test may run a loop."""
        with ThreadPoolExecutor(1) as thread:
            asking = thread.submit(lambda: asyncio.run(ask_cluster(self.folder / "head", "GET", "/status")))
            try:
                return asking.result().model_dump(mode="json")
            except (NotRunning, aiohttp.ClientError, OSError):
                return {}

    def nodes(self) -> dict[str, dict[str, object]]:
        """Each node's report, with the reason why it gets no requests."""
        rows = self.status().get("nodes", [])
        assert isinstance(rows, list)
        return {one["report"]["host"]: {**one["report"], "reason": one["reason"]} for one in rows}

    def node(self, host: str) -> psutil.Process:
        """The process of a host's node."""
        pid = self.nodes()[host]["pid"]
        assert isinstance(pid, int)
        return psutil.Process(pid)

    def program(self, name: str) -> psutil.Process:
        """One of the head's own processes."""
        programs = self.status()["programs"]
        assert isinstance(programs, list)
        (pid,) = [one["pid"] for one in programs if one["name"] == name]
        return psutil.Process(pid)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def until(self, condition: Callable[[], bool], what: str, within_s: float = START_S) -> float:
        """Wait until the condition holds; how long that took. Fails with the logs."""
        began = time.monotonic()
        while not condition():
            if time.monotonic() - began > within_s:
                logs = "\n".join(f"== {name}\n{self.log(name)[-3000:]}" for name in self.programs)
                raise AssertionError(f"not within {within_s:g} s: {what}\n{self.status()}\n{logs}")
            time.sleep(POLL_S)
        return time.monotonic() - began

    def all_serve(self, hosts: Sequence[str] = HOSTS) -> bool:
        """Whether exactly these hosts have a node that gets requests, as the Fronts see it, too."""
        view = self.status()
        fronts, nodes = view.get("fronts"), view.get("nodes")
        if not isinstance(fronts, list) or not isinstance(nodes, list):
            return False
        ready = [{name for name, one in front.items() if one["ready"]} for front in fronts]
        good = {one["report"]["host"] for one in nodes if not one["reason"]}
        return good == set(hosts) and all(one == set(hosts) for one in ready)


TRILLAMA = (sys.executable, "-m", "launcher")


def environment(folder: Path, host: str) -> dict[str, str]:
    """The environment of a user with everything below the folder, as on a host of its own."""
    (folder / host).mkdir(exist_ok=True)
    own = {"XDG_RUNTIME_DIR": str(folder / host), "TRILLAMA_CACHE": str(folder / host), "XDG_STATE_HOME": str(folder)}
    return {**{name: value for name, value in os.environ.items() if not name.startswith("RAY_")}, **own}


@contextmanager
def local_cluster(
    node: Sequence[str], settings: Mapping[str, object] | None = None, hosts: Sequence[str] = HOSTS
) -> Iterator[LocalCluster]:
    """A cluster whose hosts join with the arguments `node`, serving on all of them; ended by process id."""
    with tempfile.TemporaryDirectory(prefix="tc-", dir="/tmp") as name:  # a short path: Ray's sockets are below it
        folder, ray = Path(name), free_ports()
        port = unused_port()
        config = {"front": {"port": port}, "ray": {"port": ray}, **(settings or {})}
        (folder / "cluster.toml").write_text(tomli_w.dumps(config), encoding="utf-8")
        cluster = LocalCluster(folder=folder, url=f"http://127.0.0.1:{port}")
        token = str(folder / "token")
        try:
            start(cluster, "head", "head", str(folder / "cluster.toml"), "--token-file", token)
            cluster.until((folder / "token").exists, "the head makes a token")
            for number, host in enumerate(hosts, 1):
                where = ("--address", host, "--first-port", str(ray + 128 * number))
                start(cluster, host, "join", f"127.0.0.1:{ray}", "--token-file", token, *where, *node)
            cluster.until(lambda: cluster.all_serve(hosts), "all nodes serve")
            yield cluster
        finally:
            end(cluster)


def start(cluster: LocalCluster, name: str, *arguments: str) -> None:
    """Start `trillama cluster ARGUMENTS` as on a host of that name."""
    with (cluster.folder / f"{name}.log").open("ab") as log:
        cluster.programs[name] = subprocess.Popen(
            (*TRILLAMA, "cluster", *arguments),
            env=environment(cluster.folder, name),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def end(cluster: LocalCluster) -> None:
    """End all processes of the cluster, the hosts' first."""
    everything = [child for one in cluster.programs.values() if one.poll() is None for child in children(one.pid)]
    for program in reversed(cluster.programs.values()):
        program.terminate()
    for program in cluster.programs.values():
        try:
            program.wait(30)
        except subprocess.TimeoutExpired:
            program.kill()
    _, alive = psutil.wait_procs(everything, 20)
    for one in alive:
        one.kill()
    assert not alive, f"left running: {[one.info for one in alive]}"


def children(pid: int) -> list[psutil.Process]:
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def free_ports() -> int:
    """The first of 512 ports that are likely free, below those that the system hands out: 128 for each host."""
    return 20000 + (os.getpid() + next(_CLUSTERS)) % 20 * 512


@dataclass(slots=True)
class Load:
    """Clients that post bodies in a closed loop until the block ends, and what became of their requests."""

    answered: int = 0
    lost: list[str] = field(default_factory=list)
    longest_s: float = 0.0
    spaces: set[str] = field(default_factory=set)


async def post(session: aiohttp.ClientSession, url: str, texts: Sequence[str]) -> tuple[int, bytes, Mapping[str, str]]:
    """The status, body and headers of the answer to a request for these texts."""
    body = orjson.dumps({"model": "jina-embeddings-v4", "task": "retrieval.passage", "input": texts})
    headers = {"Content-Type": "application/json"}
    async with session.post(f"{url}/v1/embeddings", data=io.BytesIO(body), headers=headers) as response:
        return response.status, await response.read(), response.headers.copy()


async def client(url: str, texts: Sequence[str], load: Load, stop: asyncio.Event) -> None:
    """Post the texts again and again until told to stop."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
        while not stop.is_set():
            began = time.monotonic()
            try:
                status, body, headers = await post(session, url, texts)
                if status == 200 and len(orjson.loads(body)["data"]) == len(texts):
                    load.answered += 1
                    load.spaces.add(headers.get("X-Trillama-Quantization", ""))
                else:
                    load.lost.append(f"{status} {body[:200]!r}")
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                load.lost.append(repr(error))
            load.longest_s = max(load.longest_s, time.monotonic() - began)
