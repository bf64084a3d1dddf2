"""The checks of `trillama doctor` for the engine, its devices and the memory, on simulated machines."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.doctor import engine as doctor_engine
from launcher.doctor import host
from launcher.doctor.checks import examine
from launcher.doctor.engine import Machine
from launcher.doctor.finding import Level
from launcher.engine import build_record
from launcher.engine.argv import REQUIRED_FLAGS
from launcher.engine.build_record import Order, Record
from launcher.engine.device_list import MIB, Device
from launcher.engine.devices import Devices, host_memory
from launcher.engine.discovery import Engine, Origin, built_path
from launcher.images.requirements import FLAGS
from launcher.settings.config import Settings, load
from tests.support.host.machine import have

CARD = Device(name="CUDA0", description="a card", total_bytes=8 << 30, free_bytes=7 << 30)


def settings_of(**given: object) -> Settings:
    return load(None, given)


def machine(settings: Settings, *gpus: Device, backend: bool = False, argv: tuple[str, ...] = ("x",)) -> Machine:
    flags = REQUIRED_FLAGS | {"--list-devices"}
    engine = Engine(argv=argv, version="1", flags=flags, origin=Origin.PATH, env={})
    return Machine(
        settings=settings, engine=engine, devices=Devices(gpus=gpus, ram=host_memory(), has_gpu_backend=backend)
    )


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
    found = await doctor_engine.devices(machine(settings_of(engine={"gpu_layers": layers}), *gpus, backend=backend))
    assert found.level is level
    assert said in found.text


@pytest.mark.parametrize(("cards", "option"), [(["AMD"], "--vulkan"), (["AMD", "NVIDIA"], "--cuda")])
async def test_a_gpu_that_the_engine_cannot_use_names_the_build_for_it(
    monkeypatch: pytest.MonkeyPatch, cards: list[str], option: str
) -> None:
    monkeypatch.setattr(host, "pci_gpus", lambda: cards)
    found = await doctor_engine.devices(machine(load(None, {})))
    assert (found.level, found.fix) == (Level.WARN, f"trillama engine build {option}")


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
    settings = settings_of(engine={"gpu_layers": 0})
    found = await doctor_engine.chosen_engine(replace(machine(settings), engine=engine_of(origin)))
    assert found.level is level
    assert said in found.text
    assert found.fix == ("trillama engine build" if level is Level.WARN else "")
    found = await doctor_engine.chosen_engine(replace(machine(settings, CARD, backend=True), engine=engine_of(origin)))
    assert found.level is Level.OK  # the GPU computes


@pytest.mark.parametrize(("left_out", "level"), [((), Level.WARN), (("amx_int8",), Level.OK)])
async def test_a_built_engine_is_told_apart_from_one_that_was_built_without_amx_for_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left_out: tuple[str, ...], level: Level
) -> None:
    built_for = ("avx512f", *left_out)
    order = Order(source="s", stock=False, instructions=built_for)
    (tmp_path / "built").touch()
    record = Record(order=order, processor="p", left_out=left_out, note="n")
    build_record.install_build(tmp_path / "built", tmp_path / "llama-server", record)
    have(tmp_path, monkeypatch, "avx512f amx_int8")
    engine = engine_of(Origin.BUILT, str(tmp_path / "llama-server"))
    found = await doctor_engine.chosen_engine(replace(machine(settings_of(engine={"gpu_layers": 0})), engine=engine))
    assert (found.level, "AMX" in found.text) == (level, level is Level.WARN)


@pytest.mark.parametrize("record", [None, "", "{}", '{"order": 1}'])
async def test_a_built_engine_without_its_record_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: str | None
) -> None:
    have(tmp_path, monkeypatch, "avx2")
    if record is not None:
        (tmp_path / "llama-server.json").write_text(record)
    engine = engine_of(Origin.BUILT, str(tmp_path / "llama-server"))
    found = await doctor_engine.chosen_engine(replace(machine(settings_of(engine={"gpu_layers": 0})), engine=engine))
    assert (found.level, found.fix) == (Level.WARN, "trillama engine build")
    assert "its record is missing or damaged" in found.text


async def test_an_engine_of_another_processor_fails_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRILLAMA_CACHE", str(tmp_path))
    (tmp_path / "engine").mkdir()
    (tmp_path / "built").touch()
    order = Order(source="s", stock=False, instructions=("amx_int8", "avx2"))
    build_record.install_build(tmp_path / "built", built_path(), Record(order=order, processor="p", note="n"))
    have(tmp_path, monkeypatch, "avx2")
    lines = {line.name: line.finding for line in await examine(lambda: settings_of(demo=True), deep=False)}
    assert lines["engine"].level is Level.FAIL
    assert "was built for another processor (p) and needs amx_int8" in lines["engine"].text
    assert "run `trillama engine build` here" in lines["engine"].text


async def test_a_gpu_that_shares_the_hosts_memory_is_reported() -> None:
    shared = replace(CARD, integrated=True)
    alone = machine(settings_of(), shared)
    assert "RAM too" in (await doctor_engine.devices(alone)).text
    beside = replace(alone, devices=replace(alone.devices, gpus=(CARD,), unused=(shared,)))
    assert "CUDA0 a card is not used: its memory is the host's" in (await doctor_engine.devices(beside)).text


async def test_threads_without_a_core_are_a_warning() -> None:
    cores = os.cpu_count() or 1
    assert (await doctor_engine.threads(machine(settings_of()))).level is Level.OK
    found = await doctor_engine.threads(machine(settings_of(engine={"threads": cores + 1})))
    assert (found.level, f"threads = {cores + 1}" in found.text) == (Level.WARN, True)


async def test_what_can_never_fit_fails_and_what_does_not_fit_now_warns() -> None:
    def of(free_mib: int, total_mib: int) -> Machine:
        gpu = Device(name="CUDA0", description="a card", total_bytes=total_mib * MIB, free_bytes=free_mib * MIB)
        return machine(settings_of(max_input_tokens=512), gpu)

    never, now, fits = [
        await doctor_engine.memory_plan(of(*sizes)) for sizes in ((900, 1000), (900, 24000), (24000,) * 2)
    ]
    assert (never.level, never.fix) == (Level.FAIL, "trillama plan")
    assert now.level is Level.WARN
    assert fits.level is Level.OK
    assert fits.text.startswith("3 models at Q4_K_M, texts of up to 512 tokens: ")
    small = await doctor_engine.memory_plan(machine(settings_of(family="bge-m3", max_input_tokens=512)))
    assert small.text.startswith("1 model at Q8_0, ")


async def test_images_are_off_or_need_an_engine_that_is_built_here() -> None:
    off, on = settings_of(), settings_of(models={"images": True})
    assert "turns them on" in (await doctor_engine.images(machine(off))).text
    assert "takes texts only" in (await doctor_engine.images(machine(settings_of(family="bge-m3")))).text
    stock = await doctor_engine.images(machine(on, CARD))
    assert (stock.level, stock.fix) == (Level.FAIL, "trillama engine build")
    built = replace(machine(on, CARD).engine, flags=REQUIRED_FLAGS | set(FLAGS))
    assert (await doctor_engine.images(replace(machine(on, CARD), engine=built))).text == "on, computed by the GPU"
    on_cpu = await doctor_engine.images(replace(machine(on), engine=built))
    assert (on_cpu.level, "seconds to minutes" in on_cpu.text) == (Level.WARN, True)
    short = settings_of(models={"images": True}, max_input_tokens=600)
    assert (await doctor_engine.images(replace(machine(short), engine=built))).level is Level.FAIL
