"""What the GPU bench reads from nvidia-smi, by a script in its place."""

import asyncio
from pathlib import Path

import pytest

from bench.gpu import card

SCRIPT = """#!/bin/sh
case "$*" in
    *--loop-ms*) printf '90\n70\n'; : >"$0.sampled"; exec sleep 60 ;;
    *=name*) printf 'NVIDIA H100 80GB HBM3\nNVIDIA L4\n' ;;
    *=memory.used*) printf '1024\n7\n' ;;
    *=memory.total*) printf '81559\n23034\n' ;;
    *=memory.free*) printf '80000\n23000\n' ;;
    *) exit 1 ;;
esac
"""


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "nvidia-smi"
    script.write_text(SCRIPT)
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")


def test_the_cards_and_the_first_one_s_memory(nvidia_smi: None) -> None:
    assert card.cards() == ["NVIDIA H100 80GB HBM3", "NVIDIA L4"]
    assert (card.used_bytes(), card.unused_bytes(), card.total_bytes()) == (2**30, 80000 * 2**20, 81559 * 2**20)


async def test_how_busy_the_card_was_is_the_mean_of_what_was_seen(nvidia_smi: None, tmp_path: Path) -> None:
    async with asyncio.timeout(60), card.busy(watched=True) as found:
        while not (tmp_path / "nvidia-smi.sampled").exists():
            await asyncio.sleep(0.01)
    assert found == [80.0]
    async with card.busy(watched=False) as found:
        pass
    assert found == []


def test_without_a_driver_there_is_no_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert card.cards() == []
