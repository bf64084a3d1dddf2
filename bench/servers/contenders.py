"""What is measured: a contender as it runs, how a program becomes one, and that all give the same vectors.

All listen on local TCP and get OpenAI's request for base64 unless said otherwise, each over its own kept-alive
connections. Each is up for its block; one that gets no requests uses no processor.
"""

import asyncio
import base64
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import aiohttp
import numpy as np
import orjson
import psutil

from bench.made import Made
from launcher.arrays import F32
from launcher.engine.discovery import Engine
from launcher.measure.loadgen import Ask, RequestFailed, texts
from launcher.processes.child import last_lines, running

SLOTS, BATCH_TOKENS = 16, 2048
PREFIX = "Passage: "  # trillama prepends it to a text of retrieval.passage; for the others it is part of the text
UP_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What all contenders of a run share: files, engines (all but trillama use `stock`), processor threads.

    `others` are programs to be installed and measured too. `gpu_layers`, `batch_tokens` and `slots` are those of
    trillama, and of llama-server with the same flags.
    """

    made: Made
    engine: Engine
    stock: Engine
    threads: int
    others: frozenset[str] = frozenset()
    gpu_layers: int = 0
    batch_tokens: int = BATCH_TOKENS
    slots: int = SLOTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A running contender. `prefix` is prepended to each text; `body` has the other fields of a request.

    `engine` is where trillama's llama-server for these requests listens.
    """

    name: str
    url: str
    session: aiohttp.ClientSession
    pid: int
    prefix: str = PREFIX
    body: Mapping[str, object] = field(default_factory=dict)
    same_weights: bool = True
    computing: tuple[int, ...] = ()
    engine: Path | None = None

    def processor_s(self) -> float:
        """Processor seconds that its processes have used so far, which other work on the machine hardly changes."""
        tops = [psutil.Process(pid) for pid in self.computing or (self.pid,)]
        times = [one.cpu_times() for top in tops for one in (top, *top.children(recursive=True))]
        return sum(one.user + one.system for one in times)

    async def post(self, sent: Sequence[str], encoding: str = "base64", **more: object) -> bytes:
        """The body of the response. Raises RequestFailed."""
        body = {"input": [self.prefix + one for one in sent], "encoding_format": encoding, **self.body, **more}
        try:
            async with self.session.post(
                f"{self.url}/v1/embeddings", data=orjson.dumps(body), headers={"Content-Type": "application/json"}
            ) as answer:
                content = await answer.read()
        except aiohttp.ClientError as error:
            raise RequestFailed(f"{self.name} broke off: {error!r}") from error
        if answer.status != 200:
            raise RequestFailed(f"{self.name} answered {answer.status}: {content[:200]!r}")
        return content

    def ask(self, encoding: str = "base64") -> Ask:
        """Send a request of the load generator. Its words are one token each, so that counting takes no time."""

        async def ask(sent: Sequence[str]) -> int:
            await self.post(sent, encoding)
            return sum(one.count(" ") + 3 for one in sent)  # the prefix is 2

        return ask

    async def vectors(self, sent: Sequence[str], **more: object) -> F32:
        """(n, dimensions), rows of unit length. Raises RequestFailed."""
        rows = orjson.loads(await self.post(sent, "base64", **more))["data"]
        found: F32 = np.array([_floats(row["embedding"]) for row in sorted(rows, key=lambda row: int(row["index"]))])
        units: F32 = found / np.linalg.norm(found, axis=1, keepdims=True)
        return units


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """How a contender is started, and the fields of its requests."""

    name: str
    argv: Sequence[str]
    port: int
    env: Mapping[str, str]
    body: Mapping[str, object] = field(default_factory=dict)
    health: str = "/health"
    same_weights: bool = True


Start = Callable[[Host], AbstractAsyncContextManager[Contender]]


@asynccontextmanager
async def up(program: Program) -> AsyncIterator[Contender]:
    """A program that answers 200 at `health`. Fails with its output if it does not."""
    url = f"http://127.0.0.1:{program.port}"
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "log")
        async with (
            running(program.argv, env=program.env, grace_s=5.0, output=output) as process,
            client_session() as session,
        ):
            async with asyncio.timeout(UP_S):
                while not await _answers(session, url + program.health):
                    assert process.returncode is None, f"{program.name} ended: {last_lines(output, 20)}"
                    await asyncio.sleep(0.1)
            yield Contender(
                name=program.name,
                url=url,
                session=session,
                pid=process.pid,
                body=program.body,
                same_weights=program.same_weights,
            )


def client_session() -> aiohttp.ClientSession:
    # Closed before llama-server does it, after 5 s, whatever is in flight.
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=3)
    return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=600))


async def _answers(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url, timeout=aiohttp.ClientTimeout(total=2)) as answer:
            return answer.status == 200
    except (aiohttp.ClientError, OSError):
        return False


def _floats(encoded: str | Sequence[float]) -> F32:
    if isinstance(encoded, str):
        return np.frombuffer(base64.b64decode(encoded), dtype="<f4")
    return np.array(encoded, dtype=np.float32)


async def same_vectors(contenders: Sequence[Contender]) -> None:
    """Fail unless all give the same vectors: the timed work must be the same."""
    sent = list(islice(texts(np.random.default_rng(0), "short"), 3))
    first, *others = [await one.vectors(sent) for one in contenders]
    for one, found in zip(contenders[1:], others, strict=True):
        cosines = np.einsum("ij,ij->i", first, found)
        assert cosines.min() > 0.9999, f"{one.name} has other vectors than {contenders[0].name}: {cosines}"
