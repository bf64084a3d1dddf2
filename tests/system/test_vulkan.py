"""A real GPU backend: llama.cpp's Vulkan on Mesa's software device, as `make test-vulkan` builds it.

Skipped without that engine, which takes a quarter of an hour to build. The software device has 2 GiB, so of three small
models one stays loaded and two take turns.
"""

import asyncio
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import aiohttp
import numpy as np
import pytest

from launcher.engine.devices import read_devices
from launcher.engine.discovery import Origin, probe
from tests.support.servers import serve as serving
from tests.support.servers.serve import Serve, trillama_serve
from tests.support.servers.stack import small_family
from tests.system.faults.test_faults import TASKS, stopped
from tests.system.faults.test_on_demand import states

ENGINE = os.environ.get("TRILLAMA_VULKAN_ENGINE", "")
DRIVER = Path("/usr/share/vulkan/icd.d/lvp_icd.x86_64.json")
SHADERS_S = 900.0  # the first start compiles them: half a minute alone, many on a busy machine

pytestmark = [
    pytest.mark.skipif(not ENGINE, reason="no Vulkan engine: make test-vulkan"),
    pytest.mark.skipif(not DRIVER.is_file(), reason="no software device: apt-get install mesa-vulkan-drivers"),
    pytest.mark.timeout(3 * SHADERS_S),
]


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "TIMEOUT_S", SHADERS_S)


@pytest.fixture
def device(tmp_path: Path) -> dict[str, str]:
    """The environment with the software device, whose driver's file may be taken away."""
    driver = shutil.copy(DRIVER, tmp_path / "driver.json")
    return {"GGML_VK_VISIBLE_DEVICES": "0", "VK_ICD_FILENAMES": str(driver), "VK_DRIVER_FILES": str(driver)}


@pytest.fixture
def config(tmp_path: Path) -> dict[str, object]:
    family, models = small_family(tmp_path)
    return {
        "family": str(family),
        "max_input_tokens": 512,
        "models": {"files": {name: str(path) for name, path in models.items()}},
        "engine": {"llama_server": str(Path(ENGINE).absolute()), "slots": 4},
        "supervision": {"gpu_tokens_per_s": 0, "canary_timeout_s": SHADERS_S, "first_delay_s": 0.5, "max_delay_s": 1.0},
        "proxy": {"request_timeout_s": SHADERS_S, "start_wait_s": SHADERS_S, "recovery_s": SHADERS_S},
    }


async def embed(serve: Serve, backend: str) -> np.ndarray:
    body = {"input": ["overheating lightsaber", "two fish " * 40], "task": TASKS[backend]}
    async with aiohttp.ClientSession() as session, session.post(f"{serve.url}/v1/embeddings", json=body) as response:
        answer = await response.json()
        assert response.status == 200, answer
        return np.array([row["embedding"] for row in answer["data"]])


@pytest.mark.parametrize("present", [True, False])
async def test_the_device_is_listed_with_its_memory_or_known_to_be_missing(
    device: Mapping[str, str], present: bool
) -> None:
    env = {**os.environ, **device}
    if not present:
        Path(device["VK_ICD_FILENAMES"]).unlink()
    found = await read_devices(await probe((ENGINE,), Origin.CONFIGURED, env))
    assert found.has_gpu_backend
    assert [one.name for one in found.gpus] == ["Vulkan0"] * present
    assert all("llvmpipe" in one.description and one.total_bytes >= 2**30 for one in found.gpus)
    assert not found.unified


async def test_it_computes_what_the_cpu_does_and_makes_room_for_what_is_asked(
    config: dict[str, object], device: Mapping[str, str], patient: None
) -> None:
    async with trillama_serve({**config, "engine": {**config["engine"], "gpu_layers": 0}}) as serve:  # type: ignore[dict-item] # made above
        assert "--device" not in serve.child("code.sock").cmdline()
        expected = {backend: await embed(serve, backend) for backend in TASKS}
        await stopped(serve)
    async with trillama_serve(config, env=device) as serve:
        assert "code and text-matching take turns in one place" in "".join(serve.output)
        for backend in ("retrieval", "code", "text-matching", "code"):
            found = await embed(serve, backend)
            assert np.einsum("ij,ij->i", found, expected[backend]).min() > 0.999
        assert await states(serve) == {"retrieval": "ready", "code": "ready", "text-matching": "sleeping"}
        argv = serve.child("retrieval.sock").cmdline()
        assert argv[argv.index("--device") + 1] == "Vulkan0"
        assert (await serve.command("restart", "retrieval"))[0] == 0
        assert np.allclose(await embed(serve, "retrieval"), expected["retrieval"], atol=0.01)
        await stopped(serve)


async def test_a_device_that_goes_away_is_waited_for_and_the_cpu_never_takes_its_place(
    config: dict[str, object], device: Mapping[str, str], patient: None
) -> None:
    driver = Path(device["VK_ICD_FILENAMES"])
    async with trillama_serve(config, env=device) as serve:
        driver.rename(driver.with_suffix(".away"))
        await serve.kill("retrieval.sock")
        await serve.until("retrieval: backoff")
        await serve.until("retrieval: backoff")
        assert "invalid device: Vulkan0" in serve.output[-1]
        assert json.loads((await serve.command("status", "--json"))[1])["backends"][0]["state"] != "ready"
        driver.with_suffix(".away").rename(driver)
        await serve.until("retrieval: ready")
        assert len(await embed(serve, "retrieval")) == 2
        await stopped(serve)


async def test_without_its_device_it_serves_from_the_cpu_only_where_that_is_allowed(
    config: dict[str, object], device: Mapping[str, str], patient: None
) -> None:
    Path(device["VK_ICD_FILENAMES"]).unlink()
    async with trillama_serve(config, ready=False, env=device) as serve:
        assert await serve.ended() == 75
        assert "finds no GPU, and would silently compute on the CPU" in "".join(serve.output)
    allowed = {**config, "engine": {**config["engine"], "require_gpu": False}}  # type: ignore[dict-item] # made above
    async with trillama_serve(allowed, env=device) as serve:
        assert len(await asyncio.gather(*(embed(serve, backend) for backend in TASKS))) == 3
        await stopped(serve)


async def test_what_can_never_fit_the_device_is_refused_before_it_starts(
    config: dict[str, object], device: Mapping[str, str], patient: None
) -> None:
    large = {**config, "max_input_tokens": 32768}
    async with trillama_serve(large, ready=False, env=device) as serve:
        assert await serve.ended() == 75
        assert "Vulkan0" in "".join(serve.output)
        assert "starting" not in "".join(serve.output)
