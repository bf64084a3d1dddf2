"""The real clients of Cohere and Voyage send images to a real trillama, as their makers' pages show."""

import asyncio
import base64
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import orjson
import pytest
from anyio.from_thread import start_blocking_portal

from tests.clients.conftest import addressed, surroundings
from tests.clients.environments import PythonEnvironment
from tests.support.engines.engine import EngineMissing
from tests.support.requests.client import vectors_of
from tests.support.requests.pictures import png
from tests.support.servers.media import serving_images
from tests.support.servers.stack import Stack

SCRIPTS = Path(__file__).parent / "scripts"

pytestmark = pytest.mark.timeout(120, func_only=True)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A proxy that takes images, and fetches none."""
    running = serving_images(tmp_path_factory.mktemp("media"), {"images": {"urls": "off"}})
    with start_blocking_portal() as portal:
        try:
            with portal.wrap_async_context_manager(running) as served:
                yield served
        except EngineMissing as missing:
            pytest.skip(str(missing))


@pytest.fixture
def environment(package: str) -> PythonEnvironment:
    """The package's, made: not in the time of the test."""
    environment = PythonEnvironment(package)
    environment.ready()
    return environment


@pytest.mark.parametrize(("package", "script"), [("cohere", "cohere-images.py"), ("voyageai", "voyage-images.py")])
async def test_a_client_gets_the_vectors_of_its_images_and_texts(
    images: Stack, environment: PythonEnvironment, tmp_path: Path, package: str, script: str
) -> None:
    file = png(1)
    argv = environment.argv(addressed(SCRIPTS / script, images.url, tmp_path))
    env = surroundings(tmp_path)
    done = await asyncio.to_thread(
        lambda: subprocess.run(argv, input=file, capture_output=True, timeout=100, env=env, check=False)
    )
    assert done.returncode == 0, done.stderr.decode()[-4000:]
    found = orjson.loads(done.stdout.splitlines()[-1])
    inputs = [{"image": base64.b64encode(file).decode()}, "a red door"]
    answer = await images.post({"input": inputs, "task": "retrieval.passage", "embedding_type": "base64"})
    rows = answer.json["data"]
    assert isinstance(rows, list)
    np.testing.assert_allclose(found["vectors"], vectors_of(rows), atol=1e-4)
    assert found["facts"] == {"cohere": [90, 60, "png", 24], "voyageai": [6 * 28 * 28]}[package]
    assert "has both a text and an image" in found["refused"]
