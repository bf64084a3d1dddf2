"""Verifies a llama-server on three pinned texts with known vectors: ready means right vectors, not a running process.

One that takes images is verified on an image too. The vectors of a model file's first good start are kept, and later
starts are compared with them.
"""

import hashlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import aiohttp
import numpy as np
import orjson
from numpy.typing import NDArray

from launcher.errors import WrongAnswer
from launcher.host import disk
from launcher.images.prompt import golden_pixels, image_input
from proxy.contract.family import Pooling, VectorRules

log = logging.getLogger(__name__)

TEXTS = (
    "Query: What do I do if my lightsaber overheats?",
    "Passage: Das Lichtschwert 光剑 🗡️ muss abkühlen.",
    "Query: def cool_down(blade): return blade.temperature < 900",
)
# Other quantisations of a model stay above it, and so do other engines and devices; a wrong or broken model does not.
FLOOR = 0.98
_LONGEST_NAME = 200  # bytes; a file system takes 255, and an unfinished file's name is longer


@dataclass(frozen=True, slots=True)
class GoldenImage:
    """The check on an image: `marker` stands for it in its prompt, `golden` is the file with its expected vector."""

    marker: str
    golden: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenCheck:
    """The check of one backend: `golden` is the file with the expected vectors, written at the first good answer.

    `timeout_s` is for three short texts on the slowest host that is of any use; `least_tokens_per_s` is what the
    slowest GPU reaches, 0 for no floor. `by_token`: the backend returns each token's state, and `pooling` makes
    the vector of them. `image` is the check of a backend that takes images.
    """

    socket: Path
    dimensions: int
    golden: Path
    timeout_s: float
    least_tokens_per_s: float = 0.0
    by_token: bool = False
    pooling: Pooling = "mean"
    image: GoldenImage | None = None

    async def check_vectors(self) -> None:
        """Return if the vectors are right. Raises WrongAnswer, saying what is wrong."""
        await self._check(TEXTS, self.golden)
        if self.image:
            await self._check([image_input(golden_pixels(), self.image.marker)], self.image.golden)

    async def _check(self, inputs: Sequence[object], golden: Path) -> None:
        vectors = (await self._answer(inputs)).vectors
        if vectors.shape != (len(inputs), self.dimensions):
            raise WrongAnswer(f"the canary's vectors have {vectors.shape[-1]} dimensions, not {self.dimensions}")
        if not np.isfinite(vectors).all():
            raise WrongAnswer("the canary's vectors are not finite")
        if not np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3):
            raise WrongAnswer("the canary's vectors are not of unit length")
        _compare(vectors, golden)

    async def check_speed(self) -> None:
        """Return if it is as fast as a GPU has to be; call it when it is warm. Raises WrongAnswer with its speed."""
        started = time.perf_counter()
        tokens = (await self._answer(TEXTS)).tokens
        speed = tokens / (time.perf_counter() - started)
        if speed < self.least_tokens_per_s:
            raise WrongAnswer(
                f"the canary saw {speed:.0f} tokens/s, and a GPU does at least {self.least_tokens_per_s:g}: it "
                "computes on the CPU, or others use the GPU; see nvidia-smi, or set [supervision] gpu_tokens_per_s"
            )

    async def idle(self) -> bool:
        """Whether the engine computes nothing now: the check must not delay users' requests."""
        try:
            async with self._session() as session, session.get("http://llama-server/metrics") as answer:
                text = await answer.text()
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False
        busy = ("llamacpp:requests_processing ", "llamacpp:requests_deferred ")
        return not any(line.startswith(busy) and float(line.split()[1]) > 0 for line in text.splitlines())

    async def _answer(self, inputs: Sequence[object]) -> "_Answer":
        try:
            return await (self._by_token(inputs) if self.by_token else self._pooled(inputs))
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise WrongAnswer(f"the canary got no answer ({type(error).__name__})") from error
        except (KeyError, TypeError, ValueError) as error:
            raise WrongAnswer(f"the canary got an answer that is not embeddings ({error!r})") from error

    async def _pooled(self, inputs: Sequence[object]) -> "_Answer":
        answer = orjson.loads(await self._post("/v1/embeddings", {"input": inputs}))
        vectors = np.array([row["embedding"] for row in answer["data"]], dtype=np.float32)
        return _Answer(vectors, int(answer["usage"]["prompt_tokens"]))

    async def _by_token(self, inputs: Sequence[object]) -> "_Answer":
        answer = orjson.loads(await self._post("/embeddings", {"input": inputs, "embd_normalize": -1}))
        states = [row["embedding"] for row in sorted(answer, key=lambda row: int(row["index"]))]
        rows = np.array([_pool(np.array(one), self.pooling) for one in states], dtype=np.float32)
        vectors = np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))
        return _Answer(vectors, sum(map(len, states)))

    async def _post(self, path: str, body: object) -> bytes:
        data, headers = orjson.dumps(body), {"Content-Type": "application/json"}
        url = "http://llama-server" + path
        async with self._session() as session, session.post(url, data=data, headers=headers) as answer:
            return await answer.read()

    def _session(self) -> aiohttp.ClientSession:
        timeout = aiohttp.ClientTimeout(total=self.timeout_s)
        return aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self.socket)), timeout=timeout)


@dataclass(frozen=True, slots=True)
class _Answer:
    vectors: NDArray[np.float32]
    tokens: int


def _compare(vectors: NDArray[np.float32], golden: Path) -> None:
    if not golden.exists():
        _keep(vectors, golden)
        return
    try:
        expected = np.load(golden)
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise WrongAnswer(f"the expected vectors cannot be read: delete {golden}") from error
    if expected.shape != vectors.shape or not np.isfinite(expected).all():
        raise WrongAnswer(f"the expected vectors are damaged: delete {golden}")
    cosines = np.einsum("ij,ij->i", vectors, expected)
    if cosines.min() < FLOOR:
        raise WrongAnswer(
            f"the canary's vectors are not those of this file's first start (cosine {cosines.min():.4f}); "
            f"if the file is right now, delete {golden}"
        )


def _keep(vectors: NDArray[np.float32], golden: Path) -> None:
    try:
        with disk.atomic_file(golden) as unfinished, unfinished.open("wb") as file:
            np.save(file, vectors)
    except OSError as error:  # a full disk: serve all the same; the next start has nothing to be compared with
        log.warning("the canary's vectors cannot be kept in %s: %s", golden.parent, error.strerror)


def _pool(states: NDArray[np.float64], pooling: Pooling) -> NDArray[np.float64]:
    """The vector that a text's states make, as the proxy does it."""
    return np.asarray(states.mean(axis=0) if pooling == "mean" else states[0 if pooling == "cls" else -1])


def golden_path(
    folder: Path, model: Path, rules: VectorRules, lora: Path | None = None, mmproj: Path | None = None
) -> Path:
    """The file for a model's vectors. Everything that changes them is in its name, so that no two share one.

    That is name, size and time of the files, and the family's rules where they are not those of most families. With
    `mmproj` it is the file for its image's vector.
    """
    scaling = rules.rope_scaling
    parts = [_identity(model)] + [rules.pooling] * (rules.pooling != "mean") + ([_identity(lora)] if lora else [])
    parts += [_identity(mmproj)] if mmproj else []
    parts += [f"{scaling.type}-{scaling.freq_scale:g}"] if scaling else []
    name = "-".join(parts)
    if len(name.encode()) > _LONGEST_NAME:
        name = hashlib.sha256(name.encode()).hexdigest()
    return folder / f"{name}.npy"


def _identity(file: Path) -> str:
    stat = file.stat()
    return f"{file.stem}-{stat.st_size}-{stat.st_mtime_ns}"
