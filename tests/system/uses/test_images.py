"""`trillama serve` with images: switched by a reload, with the vectors of transformers, or refused by name."""

import base64
import json
import sys
from pathlib import Path

import aiohttp
import numpy as np
import pytest
import tomli_w

from launcher.build.checks.media_models import write_media_model
from launcher.build.patches.media import MEDIA_FLAG
from launcher.images.prompt import bmp, golden_pixels
from tests.support.engines.engine import EngineMissing, found_engine
from tests.support.host.programs import program
from tests.support.servers.media import BACKEND, media_family
from tests.support.servers.serve import Serve, trillama_serve
from tests.support.servers.stack import BACKENDS

TWIN = np.load(Path(__file__).parents[2] / "launcher" / "images" / "twin.npz")
SIZE = (140, 252)


@pytest.fixture
async def engine() -> str:
    """The path of an engine that pools images."""
    try:
        found = await found_engine("native")
    except EngineMissing as missing:
        pytest.skip(str(missing))
    if MEDIA_FLAG not in found.flags:
        pytest.skip(f"the engine of this machine does not know {MEDIA_FLAG}: `trillama engine build` makes one")
    return found.argv[0]


def config_of(folder: Path, engine: str, *, images: bool = True) -> dict[str, object]:
    files = write_media_model(folder)
    models = {"mmproj": str(files.mmproj), "files": dict.fromkeys(BACKENDS, str(files.model)), "images": images}
    return {
        "family": str(media_family(folder)),
        "max_input_tokens": 1024,
        "models": models,
        "engine": {"llama_server": engine, "gpu_layers": 0, "threads": 2},
        "backends": {name: {"mode": "on-demand"} for name in BACKENDS if name != BACKEND},
    }


async def test_images_are_switched_by_a_reload_and_texts_keep_their_vectors(tmp_path: Path, engine: str) -> None:
    async with trillama_serve(config_of(tmp_path, engine, images=False)) as serve:
        status, refused = await embed(serve, image())
        assert status == 422, refused
        (_, text), pid = await embed(serve, "a text"), serve.child(f"{BACKEND}.sock").pid

        await reload(serve, config_of(tmp_path, engine))
        status, answer = await embed(serve, image())
        assert status == 200, answer
        expected = TWIN[f"image_{SIZE[0]}x{SIZE[1]}"]
        assert np.array(vector(answer)) @ expected / np.linalg.norm(expected) > 0.99999
        assert vector((await embed(serve, "a text"))[1]) == vector(text)
        assert (await embed(serve, "a text"))[1]["model"] == text["model"]
        taking = serve.child(f"{BACKEND}.sock").pid
        await reload(serve, config_of(tmp_path, engine))
        assert serve.child(f"{BACKEND}.sock").pid == taking != pid  # what changes nothing restarts nothing

        await reload(serve, config_of(tmp_path, engine, images=False))
        assert (await embed(serve, image()))[0] == 422
        assert (await embed(serve, "a text"))[0] == 200


async def test_an_engine_that_pools_no_image_is_refused_with_the_command_that_builds_one(tmp_path: Path) -> None:
    stock = program(tmp_path / "stock", f'exec {sys.executable} -P -m launcher.engine.embedded "$@"')
    async with trillama_serve(config_of(tmp_path, str(stock)), ready=False) as serve:
        assert await serve.ended() == 69
    assert "has no --pool-media" in "".join(serve.output)
    assert "run `trillama engine build`" in "".join(serve.output)


def image() -> dict[str, str]:
    return {"image": base64.b64encode(bmp(golden_pixels(*SIZE))).decode()}


async def embed(serve: Serve, item: object) -> tuple[int, dict[str, object]]:
    """The status and the body of the answer."""
    url = f"{serve.url}/v1/embeddings"
    async with aiohttp.ClientSession() as session, session.post(url, json={"input": [item]}) as answer:
        body: dict[str, object] = await answer.json()
        return answer.status, body


def vector(answer: dict[str, object]) -> list[float]:
    found: list[float] = json.loads(json.dumps(answer))["data"][0]["embedding"]
    return found


async def reload(serve: Serve, config: dict[str, object]) -> None:
    port, runtime = int(serve.url.rsplit(":", 1)[1]), str(serve.runtime)
    serve.config.write_text(tomli_w.dumps({"port": port, "runtime_dir": runtime, **config}), encoding="utf-8")
    code, output = await serve.command("reload")
    assert code == 0, output
