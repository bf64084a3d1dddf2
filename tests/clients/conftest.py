"""One server for all clients, their environments and their results."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import orjson
import pytest
from anyio.from_thread import start_blocking_portal

from proxy.types import Matrix
from tests.clients.catalogue import ADDRESS, PAGE_TEXTS, QUESTION, Client
from tests.clients.environments import CL100K, Environment, NodeEnvironment, vocabulary
from tests.support.engines.engine import LlamaServer
from tests.support.servers.stack import Stack, stack, write_models

TEXTS = (
    "the quick brown fox",
    "What does the captain do when the engine overheats on the way to the third moon?",
    "über den Fluß führt eine schöne Brücke",
    "def embed(text: str) -> list[float]: return model.encode(text)",
    "我们的模型可以把文本变成向量",
    "42",
    "Привет, мир! Это просто текст.",
    "👩‍🔬 🎉🎉 ❤️",
    "fish and chips, " * 6,
    "مرحبا بالعالم هذا نص قصير",
    "日本語のテキスト",
    "An <|endoftext|> in the middle of a text is only text",
)
TOO_LONG = "fuel " * 3000
RUN_TIMEOUT_S = 100

PASSAGE, QUERY = "Passage: ", "Query: "

Found = Mapping[str, object]
Run = Callable[[Client], Found]


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """trillama with its defaults, on the embedded engine."""
    models, kept = write_models(tmp_path_factory.mktemp("models")), tmp_path_factory.mktemp("batches")
    running = stack("embedded", models, batches_dir=str(kept))
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(running) as served:
        yield served


@dataclass(frozen=True, slots=True)
class Truth:
    """The model's own unit vectors, each text computed alone by the engine, and the tokens of TEXTS."""

    texts: Matrix
    page: Matrix
    question: Matrix
    empty: Matrix
    tokens: int


@pytest.fixture(scope="session")
def truth(served: Stack) -> Truth:
    """The result that every client must get."""
    with start_blocking_portal() as portal:
        return portal.call(_truth, served.engines["retrieval"])


async def _truth(engine: LlamaServer) -> Truth:
    async def alone(prefix: str, *texts: str) -> Matrix:
        return unit(np.concatenate([await engine.embed([prefix + text]) for text in texts]))

    return Truth(
        texts=await alone(PASSAGE, *TEXTS),
        page=await alone(PASSAGE, *PAGE_TEXTS),
        question=await alone(QUERY, QUESTION),
        empty=await alone(PASSAGE, ""),
        tokens=sum([len(await engine.tokenize(PASSAGE + text)) for text in TEXTS]),
    )


def unit(rows: Matrix) -> Matrix:
    """Each row at length 1."""
    lengths: Matrix = np.sqrt((rows**2).sum(axis=1, keepdims=True))
    return rows / lengths


@pytest.fixture(scope="session")
def environments(request: pytest.FixtureRequest) -> Iterator[Mapping[Environment, Future[Path]]]:
    """The environments of the selected tests, made two at a time to overlap network and disk."""
    tests = [item for item in request.session.items if isinstance(item, pytest.Function)]
    clients = [test.callspec.params.get("client") for test in tests if hasattr(test, "callspec")]
    needed = dict.fromkeys([CL100K, *(client.environment for client in clients if isinstance(client, Client))])
    with ThreadPoolExecutor(2) as pool:
        yield {environment: pool.submit(environment.ready) for environment in needed}
        pool.shutdown(cancel_futures=True)


@pytest.fixture(scope="session")
def answers(
    served: Stack, environments: Mapping[Environment, Future[Path]], tmp_path_factory: pytest.TempPathFactory
) -> Run:
    """Run a client's script against the server, once; returns its output."""

    @cache
    def answers_of(client: Client) -> Found:
        needs_node = isinstance(client.environment, NodeEnvironment)
        if needs_node and not (shutil.which("node") and shutil.which("npm")):
            pytest.skip("there is no Node on this machine")
        for environment in (client.environment, CL100K):
            environments[environment].result()
        folder = tmp_path_factory.mktemp(client.name)
        argv = client.environment.argv(addressed(client.script, served.url, folder))
        given = orjson.dumps({"texts": TEXTS, "too_long": TOO_LONG})
        done = subprocess.run(
            argv, input=given, capture_output=True, timeout=RUN_TIMEOUT_S, env=surroundings(folder), check=False
        )
        assert done.returncode == 0, done.stderr.decode()[-4000:]
        found = orjson.loads(done.stdout.splitlines()[-1])
        assert isinstance(found, dict)
        return found

    return answers_of


@pytest.fixture
def found(client: Client, answers: Run) -> Found:
    """The output of the client's script. A fixture, so making its environment is not in the test's time."""
    return answers(client)


def addressed(script: Path, url: str, folder: Path) -> Path:
    """A copy of `script` that differs in the address only."""
    source = script.read_text(encoding="utf-8")
    assert source.count(ADDRESS) == 1, f"{script.name} names the server once: {ADDRESS}"
    copy = folder / script.name
    copy.write_text(source.replace(ADDRESS, url), encoding="utf-8")
    return copy


def surroundings(folder: Path) -> dict[str, str]:
    """A user's bare environment: no keys, no proxy of the machine's, and no way out to anything but this machine."""
    nowhere = "http://127.0.0.1:9"
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "TIKTOKEN_CACHE_DIR": str(vocabulary()),
        "HAYSTACK_TELEMETRY_ENABLED": "False",
        "HTTP_PROXY": nowhere,
        "HTTPS_PROXY": nowhere,
        "NO_PROXY": "127.0.0.1",
    }
