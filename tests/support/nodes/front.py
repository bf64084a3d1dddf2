"""A Front and its nodes as processes, and the requests that are sent to it."""

import asyncio
import io
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import numpy as np
import orjson
import tomli_w

from launcher.processes.child import last_lines, running
from tests.support.nodes.stub_node import vector_of
from tests.support.servers.stack import FAMILY_FILE, unused_port

PATIENCE_S = 60.0


@dataclass(slots=True)
class StubProcess:
    """A stub node as a process, which `start` starts again on the same port after `kill`."""

    name: str
    port: int
    folder: Path
    options: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    through: tuple[str, ...] = ()  # a command that runs it
    process: asyncio.subprocess.Process | None = None
    exits: AsyncExitStack = field(default_factory=AsyncExitStack)

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    async def start(self) -> None:
        """Returns once it listens."""
        file, output = self.folder / f"{self.name}.json", self.folder / f"{self.name}.log"
        file.unlink(missing_ok=True)
        argv = (*self.through, sys.executable, "-P", "-m", "tests.support.nodes.stub_node", "--host", self.host)
        env = {**os.environ, "PYTHONPATH": str(Path.cwd())}
        self.process = await self.exits.enter_async_context(
            running(
                (*argv, "--port", str(self.port), "--ready-file", str(file), *self.options),
                env=env,
                grace_s=5,
                output=output,
            )
        )
        await _written(file, self.process, output)

    async def kill(self) -> None:
        """As `kill -9`."""
        assert self.process is not None
        self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def stub_nodes(count: int, *options: str) -> AsyncIterator[list[StubProcess]]:
    """So many stub nodes, which all listen."""
    with tempfile.TemporaryDirectory(prefix="trillama-") as folder:
        nodes = [StubProcess(f"n{at}", unused_port(), Path(folder), options) for at in range(count)]
        async with AsyncExitStack() as exits:
            for node in nodes:
                await exits.enter_async_context(node.exits)
            await asyncio.gather(*(node.start() for node in nodes))
            yield nodes


@dataclass(frozen=True, slots=True)
class RunningFront:
    """A Front as a process."""

    url: str
    control: Path
    log: Path
    process: asyncio.subprocess.Process

    async def nodes(self) -> dict[str, dict[str, object]]:
        """The reports of `GET /nodes`."""
        async with self._session() as session, session.get("http://front/nodes") as response:
            reports = orjson.loads(await response.read())
            assert isinstance(reports, dict)
            return reports

    async def replace(self, urls: Mapping[str, str]) -> int:
        """`PUT /nodes`; returns the status."""
        async with self._session() as session, session.put("http://front/nodes", json=dict(urls)) as response:
            return response.status

    async def until_ready(self, count: int) -> None:
        """Wait until so many nodes are ready."""
        async with asyncio.timeout(PATIENCE_S):
            while sum(bool(node["ready"]) for node in (await self.nodes()).values()) != count:
                await asyncio.sleep(0.02)

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self.control)))


@asynccontextmanager
async def front(
    nodes: Mapping[str, str], *, ready: int | None = None, **settings: object
) -> AsyncIterator[RunningFront]:
    """A Front before those nodes, once `ready` of them are ready; without it all."""
    with tempfile.TemporaryDirectory(prefix="trillama-") as folder:
        file, log, control = (Path(folder, name) for name in ("front.toml", "log", "control"))
        config = {"family": str(FAMILY_FILE), "port": 0, "control": str(control)}
        file.write_text(tomli_w.dumps({**config, **settings, "nodes": dict(nodes)}), encoding="utf-8")
        argv = (sys.executable, "-P", "-m", "proxy", "--front", str(file))
        async with running(argv, env=os.environ, grace_s=10, output=log) as process:
            one = RunningFront(await _listening(process, log), control, log, process)
            await one.until_ready(len(nodes) if ready is None else ready)
            yield one


async def _listening(process: asyncio.subprocess.Process, output: Path) -> str:
    """The URL that a Front says it listens at, once it does."""
    async with asyncio.timeout(PATIENCE_S):
        while not (said := re.search(r"listening on (\S+) port (\d+)", output.read_text(encoding="utf-8"))):
            assert process.returncode is None, last_lines(output, 20)
            await asyncio.sleep(0.01)
    return f"http://{said[1]}:{said[2]}"


async def _written(file: Path, process: asyncio.subprocess.Process, output: Path) -> dict[str, object]:
    """The content of a ready file, once it is there."""
    async with asyncio.timeout(PATIENCE_S):
        while not file.exists():
            assert process.returncode is None, last_lines(output, 20)
            await asyncio.sleep(0.01)
    content = json.loads(file.read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


@dataclass(slots=True)
class Load:
    """Requests to a Front of stub nodes, in a closed loop, whose every row is compared."""

    url: str
    dimensions: int
    done: int = 0
    texts: int = 0
    lost: list[str] = field(default_factory=list)
    wrong: int = 0
    seconds: list[float] = field(default_factory=list)
    stopped: bool = False

    async def run(self, *, clients: int, texts: int, characters: int) -> None:
        """Send requests until `stopped`."""
        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as tasks:
            for client in range(clients):
                tasks.create_task(self._client(session, client, texts, characters))

    async def one(self, *, texts: int, characters: int) -> float:
        """Send a single request; returns its seconds."""
        async with aiohttp.ClientSession() as session:
            await self._timed(session, [f"{at} ".ljust(characters, "x") for at in range(texts)])
        return self.seconds[-1]

    async def until(self, done: int, within_s: float = PATIENCE_S) -> None:
        """Wait until so many requests were answered."""
        async with asyncio.timeout(within_s):
            while self.done < done:
                await asyncio.sleep(0.01)

    async def _client(self, session: aiohttp.ClientSession, client: int, texts: int, characters: int) -> None:
        number = 0
        while not self.stopped:
            number += 1
            inputs = [f"{client} {number} {at} ".ljust(characters, "x") for at in range(texts)]
            await self._timed(session, inputs)

    async def _timed(self, session: aiohttp.ClientSession, inputs: list[str]) -> None:
        started = time.perf_counter()
        content = await self._answer(session, inputs)
        self.seconds.append(time.perf_counter() - started)
        if content is not None:
            self._compare(content, inputs)
        self.done += 1
        self.texts += len(inputs)

    async def _answer(self, session: aiohttp.ClientSession, inputs: list[str]) -> bytes | None:
        """The vectors as raw floats; None if the request is lost."""
        body = orjson.dumps({"input": inputs, "task": "retrieval.passage"})
        headers = {"Accept": "application/octet-stream", "Content-Type": "application/json"}
        try:
            async with session.post(f"{self.url}/v1/embeddings", data=io.BytesIO(body), headers=headers) as response:
                content = await response.read()
        except (aiohttp.ClientError, OSError) as error:
            self.lost.append(repr(error))
            return None
        if response.status != 200:
            self.lost.append(f"{response.status} {content[:300]!r}")
            return None
        return content

    def _compare(self, content: bytes, inputs: list[str]) -> None:
        rows = np.frombuffer(content, dtype="<f4").reshape(len(inputs), -1)
        expected = np.stack([vector_of(text, "Passage: ", self.dimensions) for text in inputs])
        self.wrong += int(np.sum(np.any(rows != expected, axis=1)))
