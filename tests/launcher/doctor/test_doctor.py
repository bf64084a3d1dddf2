"""Each line of `trillama doctor`: what it finds on machines made for it, and that a crash is only a line."""

import asyncio
import hashlib
import os
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import orjson
import pytest

from launcher.doctor import setup
from launcher.doctor.checks import examine
from launcher.doctor.finding import Level
from launcher.errors import ConfigError
from launcher.models.demo import demo_models
from launcher.processes.runtime_folder import private_folder
from launcher.settings.config import Settings, load
from launcher.settings.folders import LONGEST_BASE
from tests.support.servers.serve import trillama_serve
from tests.support.servers.stack import unused_port


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: a socket's has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="d-") as path:
        yield Path(path)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Whole GGUF files of the family's architecture and size."""
    return dict(demo_models(tmp_path_factory.mktemp("demo")))


def host(**given: object) -> Settings:
    return load(None, given)


async def doctor(*arguments: str, env: Mapping[str, str]) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "launcher", "doctor", *arguments),
        env={**os.environ, **env},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return await process.wait(), output.decode()


async def test_a_good_machine_ends_with_0_and_json_has_every_line(tmp_path: Path) -> None:
    config = tmp_path / "host.toml"
    runtime = tempfile.gettempdir()  # a socket's path is short
    config.write_text(f'demo = true\nport = {unused_port()}\nruntime_dir = "{runtime}"\n[engine]\ngpu_layers = 0\n')
    code, output = await doctor("--config", str(config), "--json", env={"TRILLAMA_CACHE": str(tmp_path)})
    rows = orjson.loads(output)
    assert (code, [row["check"] for row in rows if row["level"] == "fail"]) == (0, [])
    assert len(rows) == 24
    assert all(bool(row["fix"]) == (row["level"] != "ok") for row in rows)


async def test_a_broken_configuration_is_a_failed_line_and_the_rest_is_still_checked(tmp_path: Path) -> None:
    config = tmp_path / "host.toml"
    config.write_text("prot = 8080\n")
    code, output = await doctor("--config", str(config), env={})
    assert code == 1
    assert "Traceback" not in output
    (line,) = [line for line in output.splitlines() if line.startswith("fail")]
    assert line.startswith("fail configuration")
    assert "prot" in line
    assert "ok   python" in output


async def test_a_check_that_crashes_is_a_line_that_fails() -> None:
    def crash() -> Settings:
        raise ZeroDivisionError("oh")

    lines = {line.name: line.finding for line in await examine(crash, deep=False)}
    assert lines["configuration"].level is Level.FAIL
    assert lines["configuration"].text == "the check itself failed: ZeroDivisionError('oh')"


async def test_a_missing_engine_fails_and_the_files_are_still_checked(tmp_path: Path) -> None:
    settings = host(demo=True, engine={"llama_server": str(tmp_path / "none")})
    lines = {line.name: line.finding for line in await examine(lambda: settings, deep=False)}
    assert lines["engine"].level is Level.FAIL
    assert "there is no such file" in lines["engine"].text
    assert lines["model files"].level is Level.OK


async def test_a_port_is_free_taken_or_served_by_us() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        found = await setup.port(host(port=number))
        assert (found.level, found.fix) == (Level.FAIL, f"ss -ltnp 'sport = :{number}'")
    assert (await setup.port(host(port=number))).level is Level.OK
    async with trillama_serve({"demo": True, "engine": {"gpu_layers": 0, "threads": 1}}) as serve:
        found = await setup.port(host(port=int(serve.url.rsplit(":", 1)[1])))
    assert (found.level, "served by a running trillama" in found.text) == (Level.OK, True)


async def test_a_runtime_folder_may_be_too_deep_for_a_socket(folder: Path) -> None:
    assert (await setup.runtime_folder(host(runtime_dir=str(folder)))).level is Level.OK
    longest = f"/{'x' * (LONGEST_BASE - 1)}"
    assert (await setup.runtime_folder(host(runtime_dir=longest))).level is Level.OK
    found = await setup.runtime_folder(host(runtime_dir=f"{longest}x"))
    assert found.level is Level.FAIL
    assert f"at most {LONGEST_BASE} bytes" in found.text
    with pytest.raises(ConfigError, match="too long a path for sockets"):  # and so says what serves
        async with private_folder(Path(f"{longest}x")):
            pass


async def test_a_folder_is_stale_when_nobody_listens_in_it_and_nobody_will_remove_it(folder: Path) -> None:
    settings = host(runtime_dir=str(folder))
    left = folder / "trillama-abcdefgh"
    left.mkdir()
    assert (await setup.stale_folders(settings)).level is Level.OK  # just made: a launcher may be starting
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(left / "code.sock"))
        os.utime(left, (0, 0))
        assert (await setup.stale_folders(settings)).fix == f"rm -r {left}"
        server.listen()
        assert (await setup.stale_folders(settings)).level is Level.OK
    sweeper = await asyncio.create_subprocess_exec("/bin/sh", "-c", "read -r _", "sweeper", str(left), stdin=-1)
    assert (await setup.stale_folders(settings)).level is Level.OK
    await sweeper.communicate(b"")


@pytest.mark.parametrize(
    ("address", "keys", "level", "said"),
    [
        ("127.0.0.1", None, Level.OK, "only this machine"),
        ("0.0.0.0", None, Level.WARN, "anyone who reaches 0.0.0.0:8080 is served"),
        ("0.0.0.0", ["a" * 16], Level.OK, "with one of 1 keys"),
        ("127.0.0.1", ["short", "b" * 40], Level.WARN, "1 of 2 api_keys are shorter"),
    ],
)
async def test_exposure(address: str, keys: list[str] | None, level: Level, said: str) -> None:
    found = await setup.exposure(host(host=address, proxy={"api_keys": keys} if keys else {}))
    assert found.level is level
    assert said in found.text


async def test_exposure_warns_of_short_admin_keys() -> None:
    found = await setup.exposure(host(proxy={"api_keys": ["a" * 16], "admin_keys": ["boss"]}))
    assert (found.level, found.text) == (Level.WARN, "1 of 1 admin_keys are shorter than 16 characters")
    assert "set admin_keys under" in found.fix


async def test_a_file_of_one_s_own_must_be_whole(demo: dict[str, Path], tmp_path: Path) -> None:
    files = {name: str(path) for name, path in demo.items()}
    found = await setup.complete_model_files(host(models={"files": files}), False)
    assert (found.level, found.text) == (Level.OK, "retrieval, code, text-matching here, headers checked")
    assert (await setup.disk(host(models={"files": files}), False)).text == "nothing has to be downloaded"
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(demo["code"].read_bytes()[:-100])
    found = await setup.complete_model_files(host(models={"files": {**files, "code": str(cut)}}), False)
    assert (found.level, found.fix) == (Level.FAIL, "correct files.code under [models]")
    assert "cut off" in found.text


async def test_damage_inside_a_file_of_the_hub_is_found_only_by_its_sha_256(
    demo: dict[str, Path], tmp_path: Path
) -> None:
    content = demo["code"].read_bytes()
    blob, link = tmp_path / hashlib.sha256(content).hexdigest(), tmp_path / "code.gguf"
    blob.write_bytes(content)
    link.symlink_to(blob)
    settings = host(models={"files": {**{name: str(path) for name, path in demo.items()}, "code": str(link)}})
    assert (await setup.complete_model_files(settings, True)).level is Level.OK
    blob.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert (await setup.complete_model_files(settings, False)).level is Level.OK
    assert "damaged: its SHA-256 is" in (await setup.complete_model_files(settings, True)).text
