"""What an engine's record says, also one of an earlier build."""

import json
from pathlib import Path

import pytest

from launcher.engine import build_record
from launcher.engine.build_record import ComputeBackend, Order, Record


@pytest.mark.parametrize(("cuda", "backend"), [(False, ComputeBackend.CPU), (True, ComputeBackend.CUDA)])
def test_a_record_of_an_earlier_build_is_read(tmp_path: Path, cuda: bool, backend: ComputeBackend) -> None:
    order = {"source": "s", "cuda": cuda, "stock": False, "instructions": ["avx2"]}
    (tmp_path / "llama-server.json").write_text(json.dumps({"order": order, "processor": "p", "note": "n"}))
    expected = Order(source="s", backend=backend, stock=False, instructions=("avx2",))
    assert build_record.read_record(tmp_path / "llama-server") == Record(order=expected, processor="p", note="n")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    order = Order(
        source="s", backend=ComputeBackend.HIP, stock=True, architectures="", cmake=("-DGGML_LTO=ON",), instructions=()
    )
    record = Record(order=order, processor="p", note="n")
    build_record.write_record(tmp_path / "llama-server", record)
    assert build_record.read_record(tmp_path / "llama-server") == record
    link = tmp_path / "bin" / "llama-server"
    link.parent.mkdir()
    link.symlink_to(tmp_path / "llama-server")
    assert build_record.read_record(link) == record


@pytest.mark.parametrize(
    ("given", "command"),
    [
        ({}, "trillama engine build"),
        ({"backend": ComputeBackend.VULKAN, "stock": True}, "trillama engine build --vulkan --stock"),
        (
            {"backend": ComputeBackend.CUDA, "architectures": "80;90"},
            'trillama engine build --cuda --cuda-arch "80;90"',
        ),
    ],
)
def test_the_command_of_an_order(given: dict[str, object], command: str) -> None:
    assert Order.model_validate({"source": "s", "stock": False, "instructions": (), **given}).command == command
