"""The GPU computes, or it is said: at the start, in what the engine says, and by its speed."""

import os
from pathlib import Path

import pytest

from launcher.engine.cpu_fallback import find_fallback
from tests.support.servers.serve import trillama_serve
from tests.system.faults.test_faults import config, faulty_engine, stopped, until

__all__ = ["config", "faulty_engine"]  # fixtures

ONE_GPU = "Available devices:\n  CUDA0: A GPU (24000 MiB, 23000 MiB free)\n"
NO_DRIVER = "ggml_cuda_init: failed to initialize CUDA: no CUDA-capable device is detected\nAvailable devices:\n"


def on_gpu(config: dict[str, object], **engine: object) -> dict[str, object]:
    return {**config, "engine": {**config["engine"], "gpu_layers": 99, **engine}}  # type: ignore[dict-item] # a table


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("falls back to the CPU", "computes on the CPU (warning: no usable GPU found"),
        ("loses its GPU", "invalid device: CUDA0"),
        ("is slow", "a GPU does at least 100"),
    ],
)
async def test_a_backend_that_is_not_on_its_gpu_is_not_ready(config: dict[str, object], fault: str, cause: str) -> None:
    env = {"FAULTY": f"code={fault}", "FAULTY_DEVICES": ONE_GPU}
    async with trillama_serve(on_gpu(config), ready=False, env=env) as serve:
        await serve.until("code: backoff")
        assert cause in serve.output[-1]
        await until(serve, "retrieval", 200)
        await stopped(serve)


async def test_without_its_driver_it_does_not_start_on_the_cpu(config: dict[str, object]) -> None:
    async with trillama_serve(on_gpu(config), ready=False, env={"FAULTY_DEVICES": NO_DRIVER}) as serve:
        assert await serve.ended() == 75  # systemd tries again: the driver may come up
        assert "finds no GPU, and would silently compute on the CPU" in "".join(serve.output)
    async with trillama_serve(on_gpu(config, require_gpu=False), env={"FAULTY_DEVICES": NO_DRIVER}) as serve:
        await stopped(serve)


async def test_an_engine_without_gpu_is_refused_where_one_is_required(config: dict[str, object]) -> None:
    async with trillama_serve(on_gpu(config, require_gpu=True), ready=False) as serve:
        assert await serve.ended() == 69
        assert "trillama engine build --cuda" in "".join(serve.output)
    async with trillama_serve(on_gpu(config)) as serve:  # "auto": there is nothing that could be missing
        asked = serve.child("code.sock").cmdline()
        assert asked[asked.index("--gpu-layers") + 1] == "0"  # else it warns in three lines that it has no GPU
        await stopped(serve)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("load_tensors: offloaded 37/37 layers to GPU", None),
        ("load_tensors: offloaded 20/37 layers to GPU", "only 20 of 37 layers"),
        ("ggml_cuda_init: failed to initialize CUDA: unknown error", "computes on the CPU"),
        ("all is well", None),
    ],
)
def test_what_an_engine_says(line: str, said: str | None) -> None:
    found = find_fallback(["before", line])
    assert (found is None) == (said is None)
    assert (said or "") in (found or "")


async def test_a_cache_that_cannot_be_written_does_not_stop_serving(config: dict[str, object], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "golden").write_text("in the way of the folder", encoding="utf-8")
    async with trillama_serve(config, env={**os.environ, "TRILLAMA_CACHE": str(cache)}) as serve:
        assert "cannot be kept" in "".join(serve.output)
        await stopped(serve)
