"""Truth: every vector against PyTorch's, alone and under load, and after restarts."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bench.gpu import twin
from bench.gpu.machine import BenchMachine
from bench.gpu.models import MIXTURES
from bench.gpu.phases import late
from bench.gpu.results.found import Recorder
from bench.gpu.served import TASKS, Serving, cosines, three, trillama_serving
from bench.gpu.twin import TokenSpan, TwinJob
from bench.servers.contenders import Contender
from launcher.measure.loadgen import RequestFailed, text
from proxy.embedding.chunk_means import F64

_CLIENTS = 48
MOST_PER_REQUEST = 8
OTHER_SCRIPTS = ("über die Brücke 我们的模型 👍🏽", "def embed(self) -> None:\n\treturn\n", "Привет, мир! مرحبا")
# The engine rounds activations to 8 bits with quantised weights, which random weights amplify; a wrong token or
# position costs 0.03 and more.
WRONG_BELOW = {"F16": 0.9999, "Q8_0": 0.999, "Q4_K_M": 0.999}


@dataclass(frozen=True, slots=True)
class TextCase:
    """A text of a task, and its exact vector."""

    task: str
    text: str
    exact: F64


@dataclass(slots=True)
class Client:
    """Sends cases and compares each vector with the exact one, and with that of the same text alone."""

    contender: Contender
    alone: dict[tuple[str, str], F64] = field(default_factory=dict)
    least: float = 1.0
    least_to_alone: float = 1.0
    wrong: int = 0
    checked: int = 0

    async def check(self, cases: Sequence[TextCase], floor: float) -> None:
        """Send one request with cases of one task. Raises RequestFailed."""
        found = await self.contender.vectors([one.text for one in cases], task=cases[0].task)
        exact = cosines(found, np.stack([one.exact for one in cases]))
        self.least = min(self.least, float(exact.min()))
        self.wrong += int((exact < floor).sum())
        self.checked += len(cases)
        for one, vector in zip(cases, found, strict=True):
            before = self.alone.setdefault((one.task, one.text), np.asarray(vector, np.float64))
            self.least_to_alone = min(self.least_to_alone, float(cosines(vector[None], before[None])[0]))


async def run_truth(machine: BenchMachine, found: Recorder) -> None:
    """All quantisations, then late chunking and multi-vectors, the rounding, and restarts."""
    for quantization in MIXTURES:
        with found.part(quantization):
            await _quantization(machine, found, quantization)
    await late.run_late(machine, found)
    with found.part("restarts"):
        await _restarts(machine, found)


async def _quantization(machine: BenchMachine, found: Recorder, quantization: str) -> None:
    sizes, floor = machine.scale.checked, WRONG_BELOW[quantization]
    files = await asyncio.to_thread(three, machine, sizes, quantization)
    async with trillama_serving(machine, files, sizes, tokens=machine.scale.longest) as served:
        ids = {key: await _ids(served, *key) for key in await _texts(machine, served)}
        cases, half = await _cases(machine, files, ids)
        client = Client(served.client)
        for one in cases:
            await client.check([one], floor)
        found.set(f"{quantization}, alone: least cosine", client.least)
        found.set(f"{quantization}: least cosine of PyTorch's float16", half)
        await _under_load(machine, found, quantization, client, cases)


async def _texts(machine: BenchMachine, served: Serving) -> list[tuple[str, str]]:
    """Task and text: each length for each task, other scripts, and a pool of random lengths for the load."""
    random, scale, found = np.random.default_rng(5), machine.scale, []
    for task in TASKS:
        of_prefix = len(await _ids(served, task, "the")) - 1
        drawn = np.exp(random.uniform(np.log(of_prefix + 1), np.log(scale.longest / 2), scale.pool))
        found += [(task, text(random, tokens - of_prefix)) for tokens in (*scale.lengths, *map(int, drawn))]
        found += [(task, other) for other in OTHER_SCRIPTS]
    return found


async def _ids(served: Serving, task: str, text_: str) -> list[int]:
    """The ids that the engine's own tokenizer gives."""
    backend, prefix = TASKS[task]
    return await served.engine(backend).tokenize(prefix + text_)


async def _cases(
    machine: BenchMachine, files: Mapping[str, Path], ids: Mapping[tuple[str, str], Sequence[int]]
) -> tuple[list[TextCase], float]:
    """The cases with their exact vectors, and the least cosine to them of PyTorch in float16."""
    keys = {backend: [key for key in ids if TASKS[key[0]][0] == backend] for backend in files}
    jobs = [TwinJob(file, [TokenSpan(ids[key]) for key in keys[backend]]) for backend, file in files.items()]
    half = TwinJob(jobs[0].model, jobs[0].spans, "float16")
    *exact, rounded = await twin.torch_vectors(machine, [*jobs, half])
    every = [key for own in keys.values() for key in own]
    cases = [TextCase(*key, vector) for key, vector in zip(every, np.vstack(exact), strict=True)]
    return cases, float(cosines(exact[0], rounded).min())


async def _under_load(
    machine: BenchMachine, found: Recorder, quantization: str, client: Client, cases: Sequence[TextCase]
) -> None:
    """CLIENTS clients send random texts in requests of random sizes, for a while."""
    random, failed = np.random.default_rng(6), []
    by_task = {task: [one for one in cases if one.task == task] for task in TASKS}
    client.least = 1.0
    client.checked = 0

    async def one(until: float) -> None:
        while time.monotonic() < until:
            own = by_task[str(random.choice(list(TASKS)))]
            some = random.choice(len(own), int(random.integers(1, MOST_PER_REQUEST + 1)), replace=False)
            try:
                await client.check([own[number] for number in some], WRONG_BELOW[quantization])
            except RequestFailed as error:
                failed.append(str(error))

    async with asyncio.TaskGroup() as tasks:
        for _ in range(_CLIENTS):
            tasks.create_task(one(time.monotonic() + 4 * machine.scale.window_s))
    for reason in sorted(set(failed))[:5]:
        found.note(f"{quantization}: {reason}")
    found.set(f"{quantization}, {_CLIENTS} clients: texts", client.checked)
    found.set(f"{quantization}, {_CLIENTS} clients: least cosine", client.least)
    found.set(f"{quantization}, {_CLIENTS} clients: wrong", client.wrong)
    found.set(f"{quantization}, {_CLIENTS} clients: failed requests", len(failed))
    found.set(f"{quantization}: least cosine to the same text alone", client.least_to_alone)


async def _restarts(machine: BenchMachine, found: Recorder) -> None:
    """Restart a backend again and again while a client asks: each start has to pass its golden check."""
    sizes = machine.scale.checked
    files = three(machine, sizes, "Q8_0")
    async with trillama_serving(machine, files, sizes, tokens=machine.scale.longest) as served:
        sent = [text(np.random.default_rng(7), 20)]
        first = await served.client.vectors(sent, task="retrieval.query")
        least, longest = 1.0, 0.0
        for _ in range(machine.scale.restarts):
            started, before = time.monotonic(), served.engine("retrieval").pid
            code, output = await served.serve.command("restart", "retrieval")
            assert code == 0, output
            async with asyncio.timeout(60):
                while _pid(served) in {before, None}:  # noqa: ASYNC110 # a process of others tells nobody
                    await asyncio.sleep(0.02)
            now = await served.client.vectors(sent, task="retrieval.query")
            least = min(least, float(cosines(first, now)[0]))
            longest = max(longest, time.monotonic() - started)
        code, status = await served.serve.command("status")
    found.set("restarts", machine.scale.restarts)
    found.set("restarts: least cosine to before", least)
    found.set("restarts: longest, in seconds", longest)
    if "canary" in status:
        found.note(status)


def _pid(served: Serving) -> int | None:
    """Of the backend's llama-server; None while there is none."""
    pids = [one.pid for one in served.serve.children() if any("/retrieval.sock" in part for part in one.cmdline())]
    return pids[0] if len(pids) == 1 else None
