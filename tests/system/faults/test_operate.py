"""`trillama status`, `restart`, `reload` and `logs`, asked of a real `trillama serve`."""

import asyncio
import contextlib
import json
import signal
from collections.abc import Mapping
from pathlib import Path

import aiohttp
import pytest
import tomli_w

from launcher.multivector.projector import save_projector
from tests.support.servers.serve import Serve, quick_engine, trillama_serve
from tests.support.servers.stack import BACKENDS, family_of, small_family
from tests.support.servers.tokenwise import random_projector
from tests.system.faults.test_faults import until


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """A config of three tiny models."""
    file, models = small_family(tmp_path_factory.mktemp("operated"))
    return {
        "family": str(file),
        "max_input_tokens": 512,
        "models": {"files": {name: str(path) for name, path in models.items()}},
        "engine": quick_engine(),
    }


async def backends(serve: Serve) -> dict[str, dict[str, object]]:
    """Each backend's entry in `trillama status --json`."""
    code, output = await serve.command("status", "--json")
    assert code == 0, output
    return {one["name"]: one for one in json.loads(output)["backends"]}


def write(serve: Serve, config: Mapping[str, object]) -> None:
    port, runtime = int(serve.url.rsplit(":", 1)[1]), str(serve.runtime)
    serve.config.write_text(tomli_w.dumps({"port": port, "runtime_dir": runtime, **config}), encoding="utf-8")


async def test_status_tells_of_every_backend(family: dict[str, object]) -> None:
    async with trillama_serve(family) as serve:
        seen = await backends(serve)
        assert set(seen) == set(BACKENDS)
        for name, one in seen.items():
            assert (one["state"], one["restarts"], one["loaded"]) == ("ready", 0, 1.0)
            assert one["pid"] == serve.child(f"{name}.sock").pid
        code, page = await serve.command("status")
        assert code == 0
        assert all(name in page for name in (*BACKENDS, serve.url))


async def test_multi_vectors_come_once_the_projector_is_fetched_from_a_second_backend_on_demand(
    family: dict[str, object],
) -> None:
    async with trillama_serve({**family, "late_chunking": {"token_level": True}}) as serve:
        before = await multivectors(serve)
        made = random_projector(family_of(Path(str(family["family"]))))
        save_projector(made, Path(serve.env["TRILLAMA_CACHE"], "multivector", "jina-embeddings-v4.npz"))
        after = await multivectors(serve)
    assert "run `trillama models pull --multivector`" in before
    answer = json.loads(after)
    (row,) = answer["data"]
    assert len(row["embeddings"]) == answer["usage"]["total_tokens"]
    assert {len(vector) for vector in row["embeddings"]} == {128}


async def multivectors(serve: Serve) -> str:
    """The answer's body."""
    body = {"input": "a text", "return_multivector": True, "task": "code.query"}
    async with aiohttp.ClientSession() as session, session.post(f"{serve.url}/v1/embeddings", json=body) as answer:
        return await answer.text()


async def test_restart_starts_one_again_and_leaves_the_others(family: dict[str, object]) -> None:
    async with trillama_serve(family) as serve:
        before = await backends(serve)
        code, output = await serve.command("restart", "code")
        assert code == 0, output
        after = await backends(serve)
        assert {name for name in BACKENDS if before[name]["pid"] != after[name]["pid"]} == {"code"}
        assert (after["code"]["state"], after["code"]["restarts"]) == ("ready", 0)
        code, output = await serve.command("restart", "cobol")
        assert code == 2
        assert "no backend cobol; there are retrieval, code, text-matching" in output


async def test_a_hangup_starts_again_only_what_the_new_configuration_changes(family: dict[str, object]) -> None:
    async with trillama_serve(family) as serve:
        before, proxy = await backends(serve), serve.child("proxy.toml").pid
        files = dict(family["models"]["files"])  # type: ignore[index] # made above
        write(serve, {**family, "models": {"files": {**files, "code": files["retrieval"]}}})
        serve.process.send_signal(signal.SIGHUP)
        await serve.until("has been read again")
        after = await backends(serve)
        assert {name for name in BACKENDS if before[name]["pid"] != after[name]["pid"]} == {"code"}
        assert after["code"]["model"] == files["retrieval"]
        assert serve.child("proxy.toml").pid != proxy  # it tokenises with the file


async def test_a_wrong_configuration_is_refused_and_the_old_one_stays(family: dict[str, object]) -> None:
    async with trillama_serve(family) as serve:
        before = {one.pid for one in serve.children()}
        for wrong, message in (
            ({"modells": {}}, "modells"),
            ({"engine": {"llama_server": "/no/such"}}, "/no/such"),
            ({"port": 1}, "another port needs a restart"),
            ({"proxy": {"api_keyz": []}}, "proxy.api_keyz: there is no such setting; did you mean api_keys?"),
            ({"proxy": {"default_task": "dance"}}, "dance"),
            ({"models": {"files": dict.fromkeys(BACKENDS, "/no/such.gguf")}}, "/no/such.gguf"),
        ):
            write(serve, {**family, **wrong})
            serve.process.send_signal(signal.SIGHUP)
            await serve.until("the old configuration stays")
            assert message in serve.output[-1]
        write(serve, {**family, "modells": {}})
        assert {one.pid for one in serve.children()} == before


async def test_a_reload_beside_second_backends_that_give_every_token(family: dict[str, object]) -> None:
    config = {**family, "late_chunking": {"token_level": True}}
    async with trillama_serve(config) as serve:
        before = await backends(serve)
        files = dict(family["models"]["files"])  # type: ignore[index] # made above
        write(serve, {**config, "models": {"files": {**files, "code": files["retrieval"]}}})
        code, output = await serve.command("reload")
        assert code == 0, output
        after = await backends(serve)
        assert {name for name in before if before[name]["model"] != after[name]["model"]} == {"code", "code-tokens"}
        assert {name for name in BACKENDS if before[name]["pid"] != after[name]["pid"]} == {"code"}


async def test_other_supervision_and_another_mode_restart_nothing(family: dict[str, object]) -> None:
    async with trillama_serve(family) as serve:
        before = {one.pid for one in serve.children()}
        write(serve, {**family, "supervision": {"max_misses": 7, "canary_interval_s": 0.2}})
        code, output = await serve.command("reload")
        assert code == 0, output
        assert {one.pid for one in serve.children()} == before
        write(serve, {**family, "backends": {"code": {"mode": "on-demand", "idle_s": 0.1}}})
        serve.process.send_signal(signal.SIGHUP)
        await serve.until("code: sleeping")
        write(serve, family)
        serve.process.send_signal(signal.SIGHUP)
        await serve.until("code: ready")


async def test_a_changed_family_file_counts_when_it_is_read_again_and_not_before(
    family: dict[str, object], tmp_path: Path
) -> None:
    file = tmp_path / "own.toml"
    text = Path(str(family["family"])).read_text(encoding="utf-8")
    file.write_text(text, encoding="utf-8")
    async with trillama_serve({**family, "family": str(file)}) as serve:
        file.write_text("tasks = 1", encoding="utf-8")
        await serve.kill("proxy.toml")  # in the middle of an edit: it is started with what was read
        await serve.until("the proxy exited")
        await until(serve, "code", 200)
        added = text.replace("[task_aliases]", '[task_aliases]\n"my-own" = "code.query"')
        file.write_text(added, encoding="utf-8")
        code, output = await serve.command("reload")
        assert code == 0, output
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{serve.url}/v1/embeddings", json={"input": ["a"], "task": "my-own"}) as response,
        ):
            assert response.status == 200, await response.text()


async def test_no_vector_of_a_new_model_goes_out_as_the_old_one_s(family: dict[str, object]) -> None:
    files = dict(family["models"]["files"])  # type: ignore[index] # made above
    swapped = {**files, "retrieval": files["code"], "text-matching": files["code"]}
    async with trillama_serve({**family, "proxy": {"log_level": "warning"}}) as serve, asyncio.TaskGroup() as tasks:
        seen: dict[str, set[float]] = {}  # by the digest that came with it: one number of the vector

        async def ask() -> None:
            body = {"input": ["a"], "task": "retrieval.query"}
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    async with (
                        aiohttp.ClientSession() as session,
                        session.post(f"{serve.url}/v1/embeddings", json=body) as answer,
                    ):
                        if answer.status == 200:
                            vector = (await answer.json())["data"][0]["embedding"]
                            seen.setdefault(answer.headers["X-Trillama-Model-Digest"], set()).add(round(vector[0], 3))
                await asyncio.sleep(0.01)

        asking = tasks.create_task(ask())
        write(serve, {**family, "models": {"files": swapped}})
        code, output = await serve.command("reload")
        assert code == 0, output
        async with asyncio.timeout(20):
            while len(seen) < 2:
                await asyncio.sleep(0.05)
        asking.cancel()
    assert [len(vectors) for vectors in seen.values()] == [1, 1]


async def test_one_that_does_not_answer_is_reported(family: dict[str, object]) -> None:
    async with trillama_serve({**family, "supervision": {"grace_s": 1.0}}, ready=False) as serve:
        await serve.until("starting")
        serve.process.send_signal(signal.SIGSTOP)
        try:
            code, output = await serve.command("status")
        finally:
            serve.process.send_signal(signal.SIGCONT)
        assert (code, "does not answer" in output) == (69, True), output


async def test_reload_says_at_once_what_is_wrong(family: dict[str, object]) -> None:
    async with trillama_serve(family) as serve:
        files = dict(family["models"]["files"])  # type: ignore[index] # made above
        write(serve, {**family, "models": {"files": {**files, "code": "/no/such.gguf"}}})
        code, output = await serve.command("reload")
        assert code == 66
        assert "/no/such.gguf" in output
        write(serve, {**family, "max_input_tokens": 256})
        code, output = await serve.command("reload")
        assert code == 0, output
        assert {one["batch_tokens"] for one in (await backends(serve)).values()} == {256}


async def test_logs_are_kept_per_run(family: dict[str, object]) -> None:
    async with trillama_serve(family) as serve:
        for name in BACKENDS:
            Path(serve.logs, f"{name}.log").write_text(f"{name} said this\n", encoding="utf-8")
        code, output = await serve.command("logs", "code")
        assert (code, output.splitlines()) == (0, ["code said this"])
        await serve.command("restart", "code")
        code, output = await serve.command("logs", "code", "--earlier", "1")
        assert (code, output.splitlines()) == (0, ["code said this"])
        code, output = await serve.command("logs")
        assert "retrieval: retrieval said this" in output.splitlines()
        code, output = await serve.command("logs", "code", "--earlier", "9")
        assert (code, "code.log.9: a llama-server writes errors only" in output) == (0, True)


async def test_that_nothing_runs_is_reported(family: dict[str, object], tmp_path: Path) -> None:
    async with trillama_serve({**family, "supervision": {"grace_s": 1.0}}, ready=False) as serve:
        await serve.until("starting")
        serve.process.send_signal(signal.SIGTERM)
        await serve.ended()
        code, output = await serve.command("status")
        assert code == 69
        assert "trillama serve" in output
