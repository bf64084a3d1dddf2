"""Faults of the machine under an unattended launcher: one part is affected, the rest keeps serving."""

import asyncio
import json
import os
from pathlib import Path

import numpy as np
import pytest

from tests.support.servers.serve import Serve, trillama_serve
from tests.system.faults.test_faults import config, faulty_engine, status, stopped, until
from tests.system.starts.test_cpu_fallback import on_gpu

__all__ = ["config", "faulty_engine"]  # fixtures

SMALL_GPU = "Available devices:\n  CUDA0: A GPU (2000 MiB, 2000 MiB free)\n"  # two models of three at once


async def backends(serve: Serve) -> dict[str, dict[str, object]]:
    _, output = await serve.command("status", "--json")
    return {one["name"]: one for one in json.loads(output)["backends"]}


@pytest.mark.parametrize("gpu_layers", [0, 99])
async def test_an_engine_that_cannot_be_run_for_a_while_ends_nothing(
    config: dict[str, object], faulty_engine: Path, tmp_path: Path, gpu_layers: int
) -> None:
    engine = tmp_path / "llama-server"
    engine.write_bytes(faulty_engine.read_bytes())
    engine.chmod(0o755)
    config = {**config, "engine": {"llama_server": str(engine), "gpu_layers": gpu_layers}}
    async with trillama_serve(config, env={"FAULTY_DEVICES": SMALL_GPU.replace("2000", "9000")}) as serve:
        aside = engine.rename(tmp_path / "aside")
        await serve.kill("code.sock")
        await serve.until("No such file")
        assert "code: backoff" in serve.output[-1]
        assert await status(serve, "retrieval") == 200
        aside.rename(engine)
        await serve.until("code: ready")
        await until(serve, "code", 200)
        await stopped(serve)


async def test_a_proxy_whose_settings_cannot_be_written_is_tried_again(config: dict[str, object]) -> None:
    async with trillama_serve(config) as serve:
        (folder,) = serve.runtime.iterdir()
        (folder / "1.proxy.toml").unlink()
        (folder / "1.proxy.toml").mkdir()  # as a full disk: it cannot be written
        await serve.kill("proxy.toml")
        await serve.until("cannot be started")
        (folder / "1.proxy.toml").rmdir()
        await until(serve, "code", 200)
        await stopped(serve)


async def test_a_choice_that_cannot_be_kept_is_served(config: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "auto").write_text("in the way of the folder", encoding="utf-8")
    models = {**config["models"], "quantization": "auto"}  # type: ignore[dict-item] # a table
    env = {**os.environ, "TRILLAMA_CACHE": str(tmp_path)}
    async with trillama_serve({**config, "models": models}, env=env) as serve:
        assert "cannot be kept" in "".join(serve.output)
        await stopped(serve)


async def test_a_folder_too_long_for_sockets_is_refused_at_once(config: dict[str, object], tmp_path: Path) -> None:
    async with trillama_serve({**config, "runtime_dir": str(tmp_path / ("long" * 25))}, ready=False) as serve:
        assert await serve.ended() == 78
        assert "runtime_dir" in serve.output[-2]
        assert "Traceback" not in "".join(serve.output)


async def test_those_that_do_not_fit_together_take_turns_on_the_gpu(config: dict[str, object]) -> None:
    async with trillama_serve(on_gpu(config), env={"FAULTY_DEVICES": SMALL_GPU}) as serve:
        seen = await backends(serve)
        assert [one["on_demand"] for one in seen.values()] == [False, True, True]
        assert all(one["planned_bytes"]["CUDA0"] > 2**29 for one in seen.values())  # type: ignore[index] # a table
        await until(serve, "code", 200)
        await until(serve, "text-matching", 200)
        await serve.until("text-matching: ready")
        said = "".join(serve.output)
        assert said.index("code: ready") < said.index("code: sleeping", said.index("code: ready"))
        seen = await backends(serve)
        assert [one["state"] for one in seen.values()] == ["ready", "sleeping", "ready"]
        before = {one["pid"] for one in seen.values()}
        code, output = await serve.command("reload")  # what our own models hold is not what others took
        assert code == 0, output
        assert {one["pid"] for one in (await backends(serve)).values()} == before
        await stopped(serve)


async def test_damaged_golden_vectors_are_reported_and_end_nothing(config: dict[str, object]) -> None:
    async with trillama_serve(config) as serve:
        golden = serve.logs / "golden" / f"{Path(config['models']['files']['code']).stem}-*.npy"  # type: ignore[index]
        (file,) = golden.parent.glob(golden.name)
        for kept in (np.ones((2, 64), np.float32), np.full((3, 64), np.nan, np.float32)):
            np.save(file, kept)  # the golden check reads it while the engine is idle, and at each start
            await serve.until(f"delete {file}")
            assert "code: backoff" in serve.output[-1]
            file.unlink()
            await serve.until("code: ready")
        await stopped(serve)


async def test_no_backend_is_evicted_for_a_failed_one_whose_requests_fail_at_once(config: dict[str, object]) -> None:
    policy = {**config["supervision"], "max_failures": 0}  # type: ignore[dict-item] # a table
    config = {**on_gpu(config), "supervision": policy, "proxy": {"start_wait_s": 2.0}}
    async with trillama_serve(config, env={"FAULTY": "code=exits", "FAULTY_DEVICES": SMALL_GPU}) as serve:
        assert await status(serve, "code") == 503
        await until(serve, "text-matching", 200)
        async with asyncio.timeout(1.5):  # less than a request waits for one that starts
            assert await status(serve, "code") in (502, 503)
        for _ in range(3):  # a frequent client still delays nobody
            await status(serve, "code")
            assert await status(serve, "text-matching") == 200
        await serve.until("text-matching: ready")
        assert (await backends(serve))["code"]["state"] == "failed"
        assert (await backends(serve))["text-matching"]["state"] == "ready"
        assert "".join(serve.output).count("text-matching: ready") == 1
        await stopped(serve)


async def test_a_full_disk_under_its_own_output_ends_nothing(config: dict[str, object]) -> None:
    through = ("/bin/sh", "-c", 'exec "$@" 2>/dev/full', "sh")
    async with trillama_serve(config, through=through) as serve:
        await serve.kill("code.sock")
        await until(serve, "code", 200)
        await stopped(serve)
