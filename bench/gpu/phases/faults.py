"""Faults: a backend that is killed or stopped under load, no visible GPU, and a model too large for the card."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count

import numpy as np

from bench.gpu import card
from bench.gpu.machine import BenchMachine
from bench.gpu.results.found import Recorder
from bench.gpu.served import Serving, cosines, three, trillama_serving
from launcher.measure.loadgen import RequestFailed, text
from launcher.planning.memory import GIB
from proxy.embedding.chunk_means import F64
from tests.support.servers.serve import trillama_serve

_TASK = "retrieval.query"
_CLIENTS, LOADED_S, RECOVER_S, POLL_S = 8, 3, 60, 0.1
_SAME = 0.999
HEADER_BYTES = 32 * 2**20  # more than the header of any of our models
# A stopped process is found sooner than with the defaults, so that the phase fits its time.
SUPERVISION = {"probe_interval_s": 1.0, "grace_s": 2.0}


@dataclass(slots=True)
class ClientLoad:
    """What clients that never pause have seen."""

    answered: int = 0
    wrong: int = 0
    failed: list[str] = field(default_factory=list)


async def run_faults(machine: BenchMachine, found: Recorder) -> None:
    """One after the other."""
    for number in (signal.SIGKILL, signal.SIGSTOP):
        with found.part(number.name):
            await _ended(machine, found, number)
    for part in (_no_gpu, _too_large, _two_cards):
        with found.part(part.__name__):
            await part(machine, found)


async def _ended(machine: BenchMachine, found: Recorder, number: signal.Signals) -> None:
    """Send the signal to a backend under load."""
    files = await asyncio.to_thread(three, machine, machine.scale.real, "Q8_0", alike=True)
    tokens = machine.scale.ubatches[0]
    async with trillama_serving(machine, files, machine.scale.real, tokens=tokens, supervision=SUPERVISION) as served:
        async with _load(served) as load, _least_memory(machine) as least:
            await asyncio.sleep(LOADED_S)
            before, pid = _used(machine), served.engine("retrieval").pid
            started = time.monotonic()
            os.kill(pid, number)
            await _another(served, pid)
            await served.client.vectors([f"another text {time.monotonic()}"], task=_TASK)
            found.set(f"{number.name}: seconds until it serves again", time.monotonic() - started)
        found.set(f"{number.name}: requests meanwhile", load.answered + len(load.failed))
        found.set(f"{number.name}: failed requests", len(load.failed))
        found.set(f"{number.name}: wrong", load.wrong)
        for reason in sorted(set(load.failed))[:5]:
            found.note(f"{number.name}: {reason}")
        if machine.on_gpu:
            found.set(f"{number.name}: GiB released before the restart", (before - min(least)) / GIB)
            found.set(f"{number.name}: memory after the restart, of before", _used(machine) / before)


@asynccontextmanager
async def _load(served: Serving) -> AsyncIterator[ClientLoad]:
    """Clients that send a new text as soon as they have their answer, for the block."""
    load, numbers = ClientLoad(), count()
    sent = text(np.random.default_rng(3), 12)
    exact: F64 = np.asarray(await served.client.vectors([sent], task=_TASK), np.float64)

    async def client() -> None:
        while True:
            try:
                found = await served.client.vectors([sent, f"text {next(numbers)}"], task=_TASK)
            except RequestFailed as error:
                load.failed.append(str(error))
                await asyncio.sleep(POLL_S)
            else:
                load.answered += 1
                load.wrong += int(cosines(found[:1], exact)[0] < _SAME)

    async with _in_background([client() for _ in range(_CLIENTS)]):
        yield load


@asynccontextmanager
async def _least_memory(machine: BenchMachine) -> AsyncIterator[list[int]]:
    """The card's memory in use, sampled during the block."""
    seen: list[int] = []

    async def sample() -> None:
        while machine.on_gpu:
            seen.append(await asyncio.to_thread(card.used_bytes))
            await asyncio.sleep(POLL_S)

    async with _in_background([sample()]):
        yield seen


@asynccontextmanager
async def _in_background(running: Sequence[Coroutine[None, None, None]]) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        started = [tasks.create_task(one) for one in running]
        try:
            yield
        finally:
            for one in started:
                one.cancel()


def _used(machine: BenchMachine) -> int:
    return card.used_bytes() if machine.on_gpu else 0


async def _another(served: Serving, pid: int) -> None:
    """Wait until another process serves the backend."""
    async with asyncio.timeout(RECOVER_S):
        while True:
            with suppress(ValueError):  # none, or the old one beside the new
                if served.engine("retrieval").pid != pid:
                    return
            await asyncio.sleep(POLL_S)


async def _no_gpu(machine: BenchMachine, found: Recorder) -> None:
    """With the card hidden it must end, or at least never be ready, and say why."""
    files = three(machine, machine.scale.checked, "Q8_0", alike=True)
    engine = {**machine.engine_settings(), "gpu_layers": 99, "require_gpu": "auto" if machine.on_gpu else True}
    config = {
        "family": str(machine.family(machine.scale.checked)),
        "max_input_tokens": machine.scale.ubatches[0],
        "models": {"files": {name: str(path) for name, path in files.items()}},
        "engine": engine,
    }
    async with trillama_serve(config, ready=False, env={"CUDA_VISIBLE_DEVICES": ""}) as serve:
        with suppress(TimeoutError):
            found.set("no visible GPU: exit code", await serve.ended())
        found.set("no visible GPU: became ready", any("is ready at" in line for line in serve.output))
        found.note("no visible GPU: " + "".join(serve.output[-3:]).strip())


async def _too_large(machine: BenchMachine, found: Recorder) -> None:
    """A model of twice the card's memory must be refused before it is started."""
    model = machine.model(machine.scale.checked, "F16")
    large = machine.work / "too-large.gguf"
    with model.open("rb") as file:
        large.write_bytes(file.read(HEADER_BYTES))
    most = card.total_bytes() if machine.on_gpu else GIB
    with large.open("r+b") as sparse:
        sparse.truncate(2 * most)
    config = {
        "family": str(machine.family(machine.scale.checked)),
        "models": {"files": {"retrieval": str(large), "code": str(model), "text-matching": str(model)}},
        "engine": machine.engine_settings(),
    }
    async with trillama_serve(config, ready=False) as serve:
        if machine.on_gpu:
            code, said = await serve.ended(), "".join(serve.output)
        else:  # a start on the CPU is never refused, because a model is only mapped
            code, said = await serve.command("plan", "--ram", "1G")
        found.set("too large a model: exit code", code)
        found.note("too large a model: " + said.strip()[-600:])
    large.unlink()


async def _two_cards(machine: BenchMachine, found: Recorder) -> None:
    """The plan for several cards, where there are several."""
    if len(card.cards()) < 2:
        found.note("one card or none: no plan for two")
        return
    files = three(machine, machine.scale.real, "Q8_0", alike=True)
    async with trillama_serving(machine, files, machine.scale.real, tokens=machine.scale.longest) as served:
        _, said = await served.serve.command("plan")
        found.note(said)
        found.set("cards", len(card.cards()))
