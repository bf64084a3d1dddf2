"""Real clients against a real trillama: only their base URL is changed."""

import asyncio
import re
import subprocess
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
import numpy as np
import numpy.typing as npt
import orjson
import pytest

from launcher.processes.child import running
from proxy.types import Matrix
from tests.clients.catalogue import ADDRESS, BATCH_CLIENTS, CLIENTS, OF_ALL, PAGES, SCRIPTS, Client
from tests.clients.conftest import TEXTS, Found, Truth, addressed, surroundings, unit
from tests.clients.environments import PythonEnvironment
from tests.support.engines.engine import llama_server
from tests.support.servers.stack import BACKENDS, BATCH_TOKENS, FAMILY_FILE, Stack, proxy

# Making an environment takes as long as the network does: it is not the test's time.
pytestmark = pytest.mark.timeout(120, func_only=True)

of_each_client = pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)


@of_each_client
def test_a_batch_is_complete_normalised_and_in_order(client: Client, found: Found, truth: Truth) -> None:
    assert set(found) == OF_ALL | client.more
    batch, alone = matrix(found["batch"]), matrix(found["alone"])
    assert batch.shape == alone.shape == (len(TEXTS), 2048)
    assert_each_is_itself_only(batch, alone)
    assert_each_is_itself_only(batch, truth.texts)


@of_each_client
def test_the_code_on_its_page_gives_the_vectors(found: Found, truth: Truth) -> None:
    assert_each_is_itself_only(matrix(found["page"]), truth.page)


@pytest.mark.parametrize(
    ("client", "part"),
    [pytest.param(client, part, id=f"{client.name}-{part}") for client in CLIENTS for part in sorted(client.more)],
)
def test_its_other_options(part: str, found: Found, truth: Truth) -> None:
    PARTS[part](found, truth)


@pytest.mark.parametrize("client", [client for client in CLIENTS if client.name == "openai-python"])
@pytest.mark.usefixtures("found")
async def test_a_client_waits_while_the_models_load(
    client: Client, served: Stack, truth: Truth, tmp_path: Path
) -> None:
    model = served.models["retrieval"]
    async with AsyncExitStack() as exits:
        socket = Path(exits.enter_context(TemporaryDirectory(prefix="trillama-")), "s")
        backend = {"url": f"unix://{socket}", "batch_tokens": BATCH_TOKENS, "model_file": str(model)}
        config = {"family": str(FAMILY_FILE), "backends": dict.fromkeys(BACKENDS, backend)}
        url = await exits.enter_async_context(proxy(config, wait=False))
        argv = client.environment.argv(addressed(SCRIPTS / "openai" / "openai-waits.py", url, tmp_path))
        output = tmp_path / "output"
        script = await exits.enter_async_context(running(argv, env=surroundings(tmp_path), grace_s=1, output=output))
        async with asyncio.timeout(30):
            while await refusals(url) == 0:
                await asyncio.sleep(0.05)
            engine = await exits.enter_async_context(llama_server(model))
            socket.symlink_to(engine.socket)
            assert await script.wait() == 0, output.read_text(encoding="utf-8")
    found = orjson.loads(output.read_bytes().splitlines()[-1])
    assert found["retries"] >= 1
    assert_each_is_itself_only(matrix(found["page"]), truth.page)


@of_each_client
def test_its_page_is_copied_from_its_script(client: Client) -> None:
    blocks = re.findall(
        r"^```(?:python|js)\n(.*?)^```$", client.page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    assert blocks
    script = client.script.read_text(encoding="utf-8")
    assert ADDRESS in blocks[0]
    assert all(block in script for block in blocks)


def test_every_page_has_a_client_and_a_line_in_the_index() -> None:
    pages = {page.name for page in PAGES.glob("*.md")} - {"README.md"}
    index = (PAGES / "README.md").read_text(encoding="utf-8")
    assert pages == {client.page.name for client in CLIENTS}
    assert pages == set(re.findall(r"\]\(([\w-]+\.md)\)", index))


def whole_floats(found: Found, truth: Truth) -> None:
    assert_each_is_itself_only(matrix(found["float"]), truth.texts)


@pytest.mark.parametrize("client", BATCH_CLIENTS, ids=lambda client: client.name)
def test_a_batch_of_openais_is_run_listed_and_cancelled(client: Client, found: Found, truth: Truth) -> None:
    vectors = found["vectors"]
    assert isinstance(vectors, list)
    assert_each_is_itself_only(matrix(vectors), truth.texts)
    assert {name: value for name, value in found.items() if name != "vectors"} == {
        "status": "completed",
        "metadata": {"name": "nightly"},
        "counts": {"total": len(TEXTS) + 1, "completed": len(TEXTS), "failed": 1},
        "ids": [f"text-{n}" for n in range(len(TEXTS))],
        "errors": {"bad": 422},
        "listed": True,
        "files": True,
        "purpose": "batch_output",
        "deleted": True,
        "cancelled": "cancelled",
        "missing": "NOT_FOUND",
    }


def test_the_code_of_the_page_of_batches_runs(served: Stack, tmp_path: Path) -> None:
    page = (PAGES.parent / "batches.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (line,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    (tmp_path / "requests.jsonl").write_text(line, encoding="utf-8")
    (tmp_path / "page.py").write_text(code.replace(ADDRESS, served.url), encoding="utf-8")
    argv = PythonEnvironment("openai").argv(tmp_path / "page.py")
    env = surroundings(tmp_path)
    done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    (answer,) = map(orjson.loads, done.stdout.strip().splitlines())
    assert answer["custom_id"] == "doc-1"
    assert len(answer["response"]["body"]["data"][0]["embedding"]) == 512


def the_first_dimensions(found: Found, truth: Truth) -> None:
    short = matrix(found["short"])
    assert short.shape == (len(TEXTS), 128)
    assert_each_is_itself_only(short, unit(truth.texts[:, :128]))


def bits_0_to_255(found: Found, truth: Truth) -> None:
    same_bits(np.unpackbits(matrix(found["ubinary"]).astype(np.uint8), axis=1), truth)


def bits_less_128(found: Found, truth: Truth) -> None:
    same_bits(np.unpackbits((matrix(found["binary"]) + 128).astype(np.uint8), axis=1), truth)


def bits_that_it_unpacked(found: Found, truth: Truth) -> None:
    same_bits(matrix(found["bits"]), truth)


def bits_that_it_unpacked_from_binary(found: Found, truth: Truth) -> None:
    same_bits(matrix(found["bits_of_binary"]), truth)


def what_the_model_processed(found: Found, truth: Truth) -> None:
    assert found["tokens"] == truth.tokens


def the_prefix_alone(found: Found, truth: Truth) -> None:
    assert_each_is_itself_only(matrix(found["empty"]), truth.empty)


def a_question_by_the_other_task(found: Found, truth: Truth) -> None:
    assert_each_is_itself_only(matrix(found["question"]), truth.question)


def a_name_per_task(found: Found, truth: Truth) -> None:
    assert isinstance(found["models"], list)
    assert {"jina-embeddings-v4", "jina-embeddings-v4:retrieval.passage"} <= set(found["models"])


def its_own_exception_with_our_words(found: Found, truth: Truth) -> None:
    error = found["error"]
    assert isinstance(error, dict)
    assert re.search(r"input 1 has \d+ tokens", error["text"])
    assert error.get("code", "INPUT_TOKEN_LIMIT_EXCEEDED") == "INPUT_TOKEN_LIMIT_EXCEEDED"


PARTS: dict[str, Callable[[Found, Truth], None]] = {
    "float": whole_floats,
    "short": the_first_dimensions,
    "ubinary": bits_0_to_255,
    "binary": bits_less_128,
    "bits": bits_that_it_unpacked,
    "bits_of_binary": bits_that_it_unpacked_from_binary,
    "tokens": what_the_model_processed,
    "empty": the_prefix_alone,
    "question": a_question_by_the_other_task,
    "models": a_name_per_task,
    "error": its_own_exception_with_our_words,
}


def matrix(rows: object) -> Matrix:
    return np.array(rows, dtype=np.float32)


def assert_each_is_itself_only(given: Matrix, expected: Matrix) -> None:
    """Row i has length 1, equals the expected row i, and clearly no other row."""
    assert given.shape == expected.shape
    np.testing.assert_allclose(np.linalg.norm(given, axis=1), 1, atol=1e-5)
    cosines = given @ expected.T
    np.testing.assert_allclose(np.diag(cosines), 1, atol=1e-3)
    assert (cosines - 2 * np.eye(len(given))).max() < 0.9


def same_bits(bits: Matrix | npt.NDArray[np.uint8], truth: Truth) -> None:
    """The signs of the vectors; a value next to 0 may fall on either side, as a batch is computed in another order."""
    expected = truth.texts > 0
    assert bits.shape == expected.shape
    assert ((bits > 0) == expected).mean(axis=1).min() > 0.99


async def refusals(url: str) -> float:
    """How many embedding requests got a 503."""
    async with aiohttp.ClientSession() as session, session.get(f"{url}/metrics") as response:
        text = await response.text()
    return sum(
        float(n)
        for n in re.findall(r'^trillama_requests_total\{route="/v1/embeddings",status="503"\} (.+)', text, re.MULTILINE)
    )
