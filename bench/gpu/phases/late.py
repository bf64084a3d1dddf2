"""Late chunking both ways, multi-vectors, and the engine's rounding that late chunking depends on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import orjson

from bench.gpu import twin
from bench.gpu.machine import BenchMachine
from bench.gpu.results.found import Recorder
from bench.gpu.served import TASKS, Serving, cosines, three, trillama_serving
from bench.gpu.twin import TokenSpan, TwinJob
from launcher.engine.discovery import Engine
from launcher.measure.loadgen import RequestFailed, text
from launcher.multivector.projector import save_projector
from launcher.settings.config import FlashAttention
from launcher.supervision.standalone import standalone
from proxy.embedding.chunk_means import F64
from tests.support.servers.stack import family_of
from tests.support.servers.tokenwise import random_projector

_TASK, PREFIX_TOKENS = "retrieval.passage", 2
# Tokens of a document without the prefix, and its number of chunks; too long ones are left out.
_DOCUMENTS = ((64, 8), (504, 4), (512, 16), (2048, 16), (4096, 32), (8000, 8), (8000, 64))
OF_TOKENS = (504, 4)  # the document whose tokens' vectors are compared
REPEATED = (17, 67, 251)  # times one token is repeated: all means must be equal, as `proxy.embedding` checks
DocumentShape = tuple[int, int]


async def run_late(machine: BenchMachine, found: Recorder) -> None:
    """On F16 and Q8_0, as their kernels differ."""
    for quantization in ("F16", "Q8_0"):
        with found.part(f"{quantization}, late chunking"):
            await _served(machine, found, quantization)
        with found.part(f"{quantization}, rounding"):
            await _rounding(machine, found, quantization)


async def _served(machine: BenchMachine, found: Recorder, quantization: str) -> None:
    sizes, longest = machine.scale.checked, machine.scale.longest
    files, file = three(machine, sizes, quantization), machine.work / "projector.npz"
    made = random_projector(family_of(machine.family(sizes)))
    save_projector(made, file)
    options: dict[str, object] = {"proxy": {"multivector_file": str(file), "log_level": "warning"}}
    async with trillama_serving(machine, files, sizes, tokens=longest, **options) as served:
        documents = {shape: await _ids(served, shape) for shape in _DOCUMENTS if shape[0] + PREFIX_TOKENS <= longest}
        chunks = {shape: list(_spans(shape, ids)) for shape, ids in documents.items()}
        spans = [*(one for some in chunks.values() for one in some), *_each_token(documents[OF_TOKENS])]
        (rows,) = await twin.torch_vectors(machine, [TwinJob(files["retrieval"], spans)])
        ends = np.cumsum([len(some) for some in chunks.values()])
        *exact, states = np.split(rows, ends)
        await _late(served, found, f"{quantization}, late chunking by prefixes", dict(zip(chunks, exact, strict=True)))
    options["late_chunking"] = {"token_level": True}
    async with trillama_serving(machine, files, sizes, tokens=longest, **options) as served:
        name = f"{quantization}, late chunking with token_level"
        await _late(served, found, name, dict(zip(chunks, exact, strict=True)))
        projected = states @ made.weights["retrieval"].T.astype(np.float64) + made.bias
        whole = ["".join(_chunks(OF_TOKENS))]
        answer = orjson.loads(await served.client.post(whole, "float", task=_TASK, return_multivector=True))
        least = cosines(np.array(answer["data"][0]["embeddings"]), projected).min()
        found.set(f"{quantization}, multi-vectors: least cosine", float(least))


def _each_token(ids: Sequence[int]) -> Iterator[TokenSpan]:
    return (TokenSpan(ids, at, at + 1) for at in range(len(ids)))


def _chunks(shape: DocumentShape) -> list[str]:
    """Chunks of equally many words; each word is a token with the space before it."""
    tokens, chunks = shape
    words = text(np.random.default_rng(shape), tokens).split(" ")
    parts = ["".join(f" {word}" for word in some) for some in np.array_split(words, chunks)]
    return [parts[0].lstrip(), *parts[1:]]  # the prefix ends with a space


async def _ids(served: Serving, shape: DocumentShape) -> list[int]:
    backend, prefix = TASKS[_TASK]
    ids = await served.engine(backend).tokenize(prefix + "".join(_chunks(shape)))
    assert len(ids) == PREFIX_TOKENS + shape[0], "the prefix is no longer two tokens, or a word one"
    return ids


def _spans(shape: DocumentShape, ids: Sequence[int]) -> Iterator[TokenSpan]:
    tokens, chunks = shape
    sizes = [len(some) for some in np.array_split(np.arange(tokens), chunks)]
    for first, end in pairwise(np.cumsum([PREFIX_TOKENS, *sizes])):
        yield TokenSpan(ids, int(first), int(end))


async def _late(served: Serving, found: Recorder, name: str, exact: Mapping[DocumentShape, F64]) -> None:
    """Each document twice: once with speeds unknown, once when they are known."""
    least, refused = 1.0, 0
    for shape, vectors in [*exact.items(), *exact.items()]:
        try:
            got = await served.client.vectors(_chunks(shape), task=_TASK, late_chunking=True)
        except RequestFailed as error:
            found.note(f"{name}, {shape[0]} tokens in {shape[1]} chunks: {error}")
            refused += 1
        else:
            least = min(least, float(cosines(got, vectors).min()))
    found.set(f"{name}: least cosine", least)
    found.set(f"{name}: refused for rounding, of {2 * len(exact)}", refused)


async def _rounding(machine: BenchMachine, found: Recorder, quantization: str) -> None:
    """The relative difference of means that are equal by definition."""
    found.set(f"{quantization}, rounding", await _error(machine, machine.engine, quantization))
    found.set(
        f"{quantization}, rounding without flash attention", await _error(machine, machine.engine, quantization, "off")
    )
    if machine.on_gpu:
        exact = replace(machine.engine, env={**machine.engine.env, "NVIDIA_TF32_OVERRIDE": "0"})
        found.set(f"{quantization}, rounding without TF32", await _error(machine, exact, quantization))


async def _error(
    machine: BenchMachine, engine: Engine, quantization: str, flash_attention: FlashAttention = "auto"
) -> float:
    run = replace(machine.alone(engine, batch_tokens=512), flash_attention=flash_attention)
    async with standalone(run, "rounding", machine.model(machine.scale.checked, quantization)) as embedder:
        first, *others = [(await embedder.raw_vectors([[64] * times]))[0].astype(np.float64) for times in REPEATED]
    return max(float(np.linalg.norm(one - first) / np.linalg.norm(first)) for one in others)
