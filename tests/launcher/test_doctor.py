"""Each line of `trillama doctor`: what it finds on machines made for it, and that a crash is only a line."""

import asyncio
import hashlib
import os
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from launcher import build_record, doctor_engine, doctor_setup
from launcher.build_record import Order, Record
from launcher.command import REQUIRED_FLAGS
from launcher.config import Settings, load
from launcher.demo import demo_models
from launcher.devices import MIB, Device
from launcher.doctor import examine
from launcher.doctor_engine import Machine
from launcher.engine import Engine, Origin, built_path
from launcher.errors import ConfigError
from launcher.findings import Level
from launcher.folders import LONGEST_BASE
from launcher.gpu import Devices, host_memory
from launcher.runtime import private_folder
from tests.launcher.command import trillama_serve
from tests.launcher.machine import have
from tests.proxy.stack import unused_port

CARD = Device(name="CUDA0", description="a card", total_bytes=8 << 30, free_bytes=7 << 30)


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


def machine(settings: Settings, *gpus: Device, backend: bool = False, argv: tuple[str, ...] = ("x",)) -> Machine:
    flags = REQUIRED_FLAGS | {"--list-devices"}
    engine = Engine(argv=argv, version="1", flags=flags, origin=Origin.PATH, env={})
    return Machine(
        settings=settings, engine=engine, devices=Devices(gpus=gpus, ram=host_memory(), has_gpu_backend=backend)
    )


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
    assert len(rows) == 22
    assert all(bool(row["fix"]) == (row["level"] != "ok") for row in rows)


async def test_a_broken_configuration_is_a_line_that_fails_and_the_rest_is_still_said(tmp_path: Path) -> None:
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


async def test_an_engine_that_is_missing_fails_and_the_files_are_still_looked_at(tmp_path: Path) -> None:
    settings = host(demo=True, engine={"llama_server": str(tmp_path / "none")})
    lines = {line.name: line.finding for line in await examine(lambda: settings, deep=False)}
    assert lines["engine"].level is Level.FAIL
    assert "there is no such file" in lines["engine"].text
    assert lines["model files"].level is Level.OK


async def test_a_port_is_free_taken_or_served_by_us() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        found = await doctor_setup.port(host(port=number))
        assert (found.level, found.fix) == (Level.FAIL, f"ss -ltnp 'sport = :{number}'")
    assert (await doctor_setup.port(host(port=number))).level is Level.OK
    async with trillama_serve({"demo": True, "engine": {"gpu_layers": 0, "threads": 1}}) as serve:
        found = await doctor_setup.port(host(port=int(serve.url.rsplit(":", 1)[1])))
    assert (found.level, "served by a trillama" in found.text) == (Level.OK, True)


async def test_a_runtime_folder_may_be_too_deep_for_a_socket(folder: Path) -> None:
    assert (await doctor_setup.runtime_folder(host(runtime_dir=str(folder)))).level is Level.OK
    longest = f"/{'x' * (LONGEST_BASE - 1)}"
    assert (await doctor_setup.runtime_folder(host(runtime_dir=longest))).level is Level.OK
    found = await doctor_setup.runtime_folder(host(runtime_dir=f"{longest}x"))
    assert found.level is Level.FAIL
    assert f"it may have {LONGEST_BASE} bytes" in found.text
    with pytest.raises(ConfigError, match="too long a path for sockets"):  # and so says what serves
        async with private_folder(Path(f"{longest}x")):
            pass


async def test_a_folder_is_stale_when_nobody_listens_in_it_and_nobody_will_remove_it(folder: Path) -> None:
    settings = host(runtime_dir=str(folder))
    left = folder / "trillama-abcdefgh"
    left.mkdir()
    assert (await doctor_setup.stale_folders(settings)).level is Level.OK  # just made: a launcher may be starting
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(left / "code.sock"))
        os.utime(left, (0, 0))
        assert (await doctor_setup.stale_folders(settings)).fix == f"rm -r {left}"
        server.listen()
        assert (await doctor_setup.stale_folders(settings)).level is Level.OK
    sweeper = await asyncio.create_subprocess_exec("/bin/sh", "-c", "read -r _", "sweeper", str(left), stdin=-1)
    assert (await doctor_setup.stale_folders(settings)).level is Level.OK
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
async def test_who_may_ask(address: str, keys: list[str] | None, level: Level, said: str) -> None:
    found = await doctor_setup.exposure(host(host=address, proxy={"api_keys": keys} if keys else {}))
    assert found.level is level
    assert said in found.text


async def test_a_file_of_one_s_own_must_be_whole(demo: dict[str, Path], tmp_path: Path) -> None:
    files = {name: str(path) for name, path in demo.items()}
    found = await doctor_setup.model_files(host(models={"files": files}), False)
    assert (found.level, found.text) == (Level.OK, "retrieval, code, text-matching here, headers checked")
    assert (await doctor_setup.disk(host(models={"files": files}), False)).text == "nothing is to be downloaded"
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(demo["code"].read_bytes()[:-100])
    found = await doctor_setup.model_files(host(models={"files": {**files, "code": str(cut)}}), False)
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
    assert (await doctor_setup.model_files(settings, True)).level is Level.OK
    blob.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert (await doctor_setup.model_files(settings, False)).level is Level.OK
    assert "damaged: its SHA-256 is" in (await doctor_setup.model_files(settings, True)).text


@pytest.mark.parametrize(
    ("gpus", "backend", "layers", "level", "said"),
    [
        ((CARD,), True, 99, Level.OK, "CUDA0 a card (7.0 of 8.0 GiB free)"),
        ((CARD,), True, 0, Level.WARN, "it is not used"),
        ((), True, 99, Level.FAIL, "finds none, so the CPU would compute"),
        ((), True, 0, Level.OK, "gpu_layers = 0"),
    ],
)
async def test_devices(gpus: tuple[Device, ...], backend: bool, layers: int, level: Level, said: str) -> None:
    found = await doctor_engine.devices(machine(host(engine={"gpu_layers": layers}), *gpus, backend=backend))
    assert found.level is level
    assert said in found.text


def engine_of(origin: Origin, path: str = "x") -> Engine:
    return Engine(argv=(path,), version="1", flags=REQUIRED_FLAGS, origin=origin, env={})


@pytest.mark.parametrize(
    ("flags", "origin", "level", "said"),
    [
        ("avx2", Origin.EMBEDDED, Level.OK, "`trillama engine build` makes one for this processor"),
        ("avx512f", Origin.EMBEDDED, Level.WARN, "this processor has AVX-512, with which an engine built here is"),
        ("avx512f amx_int8", Origin.EMBEDDED, Level.WARN, "this processor has AMX, with which an engine built here"),
        ("avx512f amx_int8", Origin.PATH, Level.OK, "no extras"),  # nobody knows what it was built for
    ],
)
async def test_an_engine_that_would_be_faster_if_it_were_built_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, origin: Origin, level: Level, said: str
) -> None:
    have(tmp_path, monkeypatch, flags)
    settings = host(engine={"gpu_layers": 0})
    found = await doctor_engine.build(replace(machine(settings), engine=engine_of(origin)))
    assert found.level is level
    assert said in found.text
    assert found.fix == ("trillama engine build" if level is Level.WARN else "")
    found = await doctor_engine.build(replace(machine(settings, CARD, backend=True), engine=engine_of(origin)))
    assert found.level is Level.OK  # the GPU computes


@pytest.mark.parametrize(("left_out", "level"), [((), Level.WARN), (("amx_int8",), Level.OK)])
async def test_a_built_engine_is_told_from_one_that_was_built_without_amx_for_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left_out: tuple[str, ...], level: Level
) -> None:
    built_for = ("avx512f", *left_out)
    order = Order(source="s", cuda=False, stock=False, instructions=built_for)
    (tmp_path / "built").touch()
    record = Record(order=order, processor="p", left_out=left_out, note="n")
    build_record.install(tmp_path / "built", tmp_path / "llama-server", record)
    have(tmp_path, monkeypatch, "avx512f amx_int8")
    engine = engine_of(Origin.BUILT, str(tmp_path / "llama-server"))
    found = await doctor_engine.build(replace(machine(host(engine={"gpu_layers": 0})), engine=engine))
    assert (found.level, "AMX" in found.text) == (level, level is Level.WARN)


async def test_an_engine_of_another_processor_fails_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRILLAMA_CACHE", str(tmp_path))
    (tmp_path / "engine").mkdir()
    (tmp_path / "built").touch()
    order = Order(source="s", cuda=False, stock=False, instructions=("amx_int8", "avx2"))
    build_record.install(tmp_path / "built", built_path(), Record(order=order, processor="p", note="n"))
    have(tmp_path, monkeypatch, "avx2")
    lines = {line.name: line.finding for line in await examine(lambda: host(demo=True), deep=False)}
    assert lines["engine"].level is Level.FAIL
    assert "was built for another processor (p) and needs amx_int8" in lines["engine"].text
    assert "run `trillama engine build` here" in lines["engine"].text


async def test_a_gpu_in_the_host_s_memory_is_said_to_be() -> None:
    shared = replace(CARD, integrated=True)
    alone = machine(host(), shared)
    assert "RAM too" in (await doctor_engine.devices(alone)).text
    beside = replace(alone, devices=replace(alone.devices, gpus=(CARD,), unused=(shared,)))
    assert "CUDA0 a card is not used: its memory is the host's" in (await doctor_engine.devices(beside)).text


async def test_threads_without_a_core_are_a_warning() -> None:
    cores = os.cpu_count() or 1
    assert (await doctor_engine.threads(machine(host()))).level is Level.OK
    found = await doctor_engine.threads(machine(host(engine={"threads": cores + 1})))
    assert (found.level, f"threads = {cores + 1}" in found.text) == (Level.WARN, True)


async def test_what_can_never_fit_fails_and_what_does_not_fit_now_warns() -> None:
    def of(free_mib: int, total_mib: int) -> Machine:
        gpu = Device(name="CUDA0", description="a card", total_bytes=total_mib * MIB, free_bytes=free_mib * MIB)
        return machine(host(max_input_tokens=512), gpu)

    never, now, fits = [
        await doctor_engine.memory_plan(of(*sizes)) for sizes in ((900, 1000), (900, 24000), (24000,) * 2)
    ]
    assert (never.level, never.fix) == (Level.FAIL, "trillama plan")
    assert now.level is Level.WARN
    assert fits.level is Level.OK
    assert fits.text.startswith("3 models at Q4_K_M, texts of up to 512 tokens: ")
