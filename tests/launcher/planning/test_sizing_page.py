"""The tables of docs/sizing.md are what the planner says today."""

from collections.abc import Iterator
from pathlib import Path

from launcher.engine.device_list import Device
from launcher.engine.devices import Devices
from launcher.planning.memory import GIB
from launcher.planning.request import request_of
from launcher.planning.sizing import plan_for
from launcher.settings.config import load

PAGE = Path(__file__).parents[3] / "docs" / "sizing.md"
RAM_BESIDE_A_GPU = 64
BUILT = frozenset({"--no-logits-for-embeddings"})  # what an engine of `trillama engine build` knows
EMBEDDED: frozenset[str] = frozenset()


def rows(heading: str) -> Iterator[list[str]]:
    """The cells of each row of the table below that heading."""
    section = PAGE.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    table = [line for line in section.splitlines() if line.startswith("|")]
    for line in table[2:]:
        yield [cell.strip() for cell in line.strip("|").split("|")]


def device(name: str, gib: int) -> Device:
    return Device(name=name, description="", free_bytes=gib * GIB, total_bytes=gib * GIB)


def planned(vram: int, ram: int, flags: frozenset[str]) -> list[str]:
    """Quantisation, longest text, how many models are loaded at a time, GiB of VRAM and of RAM of each model."""
    gpus = (device("CUDA0", vram),) if vram else ()
    settings = load(None, {"models": {"quantization": "auto"}, "engine": {"gpu_layers": 99 if vram else 0}})
    names = tuple(settings.family.weights.models)
    request = request_of(settings, flags, names)
    assert request
    plan = plan_for(settings, request, Devices(gpus=gpus, ram=device("RAM", ram), has_gpu_backend=bool(vram))).plan
    assert plan
    need = plan.placed[0].need
    together = "all three" if not plan.on_demand else f"{len(plan.on_demand)} of 3 take turns"
    shown = [plan.quantization, str(plan.batch_tokens), together, f"{need.vram / GIB:.1f}", f"{need.ram / GIB:.1f}"]
    assert all(one.need == need for one in plan.placed)
    return shown


def test_the_rows_of_gpus_are_the_planner_s() -> None:
    found = list(rows("On a GPU"))
    assert len(found) >= 5
    for size, *cells, measured in found:
        assert cells == planned(int(size.split()[0]), RAM_BESIDE_A_GPU, BUILT), size
        assert measured == "not measured yet"


def test_the_rows_of_processors_are_the_planner_s() -> None:
    found = list(rows("On a processor"))
    assert len(found) >= 4
    for size, *cells in found:
        built, embedded = (planned(0, int(size.split()[0]), flags) for flags in (BUILT, EMBEDDED))
        assert cells == [*built[:2], built[4], *embedded[:2], embedded[4]], size
