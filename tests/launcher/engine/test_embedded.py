"""Both engines serve our command line, and the embedded one behaves as llama-server: vectors, signals, failures."""

import asyncio
import os
import re
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from launcher.engine import argv
from launcher.engine.argv import ServerSpec
from launcher.engine.discovery import Engine, Origin, probe
from launcher.processes.child import running
from launcher.supervision.probes import backend_up
from tests.support.engines.engine import EngineMissing, LlamaServer, native_binary
from tests.support.models.tiny_models import write_model

DEADLINE_S = 30.0
EMBEDDED = (sys.executable, "-P", "-m", "launcher.engine.embedded")
MIXED_LENGTHS = ["the quick brown fox jumps over the lazy dog " * count for count in (1, 30, 3, 80, 2, 7, 50, 15)]


@pytest.fixture
async def engine(engine_kind: str) -> Engine:
    return await engine_of(engine_kind)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "tiny.gguf", layers=4)


@pytest.fixture
def placement(model: Path) -> Iterator[ServerSpec]:
    with tempfile.TemporaryDirectory(prefix="trillama-") as folder:  # short: a socket's path has at most 107 bytes
        yield ServerSpec(
            name="retrieval",
            model=model,
            socket=Path(folder, "s.sock"),
            slots=len(MIXED_LENGTHS),
            batch_tokens=8192,
            gpu_layers=0,
            threads=2,
        )


async def test_texts_of_mixed_lengths_in_one_batch_get_the_vectors_they_get_alone(
    engine: Engine, placement: ServerSpec
) -> None:
    async with served(engine, placement) as (server, _):
        together = await server.embed(MIXED_LENGTHS)
        alone = np.concatenate([await server.embed([text]) for text in MIXED_LENGTHS])
    assert cosines(together, alone).min() > 0.99999


async def test_the_embedded_engine_computes_the_vectors_of_llama_server(placement: ServerSpec) -> None:
    vectors = []
    for kind in ("embedded", "native"):
        try:
            chosen = await engine_of(kind)
        except EngineMissing as missing:
            pytest.skip(str(missing))
        placement.socket.unlink(missing_ok=True)
        async with served(chosen, placement) as (server, _):
            vectors.append(await server.embed(MIXED_LENGTHS))
    assert cosines(*vectors).min() > 0.9999


async def test_the_longest_text_promised_is_computed(engine: Engine, placement: ServerSpec) -> None:
    async with served(engine, replace(placement, batch_tokens=1000)) as (server, _):
        assert np.isfinite(await server.embed([[5] * 1000])).all()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_an_idle_server_ends_with_0(engine: Engine, placement: ServerSpec, number: signal.Signals) -> None:
    async with served(engine, placement) as (_, process):
        async with asyncio.timeout(20):
            while not handled(process.pid, number):
                await asyncio.sleep(0.01)
        process.send_signal(number)
        assert await ended(process) == 0


def handled(pid: int, number: signal.Signals) -> bool:
    """Whether the process has a handler of its own: it says that it is up a moment before."""
    mask = re.search(r"^SigCgt:\s*([0-9a-f]+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return mask is not None and bool(int(mask[1], 16) >> (number - 1) & 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_server_that_loads_its_model_dies_at_once(
    engine: Engine, placement: ServerSpec, tmp_path: Path, number: signal.Signals
) -> None:
    endless = tmp_path / "model.gguf"
    os.mkfifo(endless)  # opening it waits for a writer that never comes
    async with started(engine, replace(placement, model=endless)) as process:
        await until(lambda: accepts(placement.socket))
        process.send_signal(number)
        assert await ended(process) == -number


async def test_a_second_signal_ends_a_server_that_waits_for_its_clients(engine: Engine, placement: ServerSpec) -> None:
    many = [[5] * 500] * 200
    async with served(engine, placement) as (server, process):
        clients = [asyncio.create_task(server.embed(many)) for _ in range(4)]
        await until(lambda: is_processing(server))
        process.send_signal(signal.SIGTERM)
        await until(lambda: not accepts(placement.socket))
        assert process.returncode is None  # trap T6: it waits for its clients, and they for it
        process.send_signal(signal.SIGTERM)
        assert await ended(process) != 0
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (("--model", "/nonexistent.gguf"), "/nonexistent.gguf"),
        (("--host", "/nonexistent/s.sock"), "couldn't bind"),
        (("--bogus",), "error: invalid argument: --bogus"),
        (("--device", "CUDA7"), "error: invalid device: CUDA7|invalid device"),
        (("--parallel", "many"), "many|stoi"),
        (("--batch-size",), "--batch-size"),
        (("--pooling", "median"), "--pooling"),
    ],
)
async def test_every_failure_to_start_exits_with_1_and_the_reason(
    engine: Engine, placement: ServerSpec, changed: tuple[str, ...], said: str
) -> None:
    async with started(engine, placement, *changed) as process:
        assert await ended(process) == 1
    output = log(placement).read_text()
    assert any(words in output for words in said.split("|")), output


async def test_a_stale_socket_is_a_failure_to_start_until_it_is_unlinked(engine: Engine, placement: ServerSpec) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(placement.socket))
    async with started(engine, placement) as process:
        assert await ended(process) == 1
    placement.socket.unlink()
    async with served(engine, placement) as (server, _):
        assert (await server.embed(["text"])).shape == (1, 64)


async def test_without_threads_given_it_takes_a_number_of_its_own(engine: Engine, placement: ServerSpec) -> None:
    async with served(engine, replace(placement, threads=None)) as (server, _):
        assert (await server.embed(["text"])).shape == (1, 64)


async def engine_of(kind: str) -> Engine:
    env = argv.environment(os.environ)
    if kind == "native":
        return await probe((str(native_binary()),), Origin.BUILT, env)
    return await probe(EMBEDDED, Origin.EMBEDDED, env)


@asynccontextmanager
async def served(
    engine: Engine, placement: ServerSpec
) -> AsyncIterator[tuple[LlamaServer, asyncio.subprocess.Process]]:
    async with started(engine, placement) as process:
        while not await backend_up(placement.socket):
            assert process.returncode is None, log(placement).read_text()
            await asyncio.sleep(0.02)
        yield LlamaServer(placement.socket, process.pid), process


@asynccontextmanager
async def started(engine: Engine, placement: ServerSpec, *more: str) -> AsyncIterator[asyncio.subprocess.Process]:
    line = (*argv.argv(engine, placement), *more)
    async with running(line, env=engine.env, grace_s=0.1, output=log(placement)) as process:
        yield process


def log(placement: ServerSpec) -> Path:
    return placement.socket.with_name("log")


async def ended(process: asyncio.subprocess.Process) -> int:
    async with asyncio.timeout(DEADLINE_S):
        return await process.wait()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.02)


def accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def is_processing(server: LlamaServer) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(server.socket))
        client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        answer = b"".join(iter(lambda: client.recv(65536), b"")).decode()
    return "llamacpp:requests_deferred 0" not in answer


def cosines(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return np.asarray((one * other).sum(axis=1) / lengths, dtype=np.float32)
