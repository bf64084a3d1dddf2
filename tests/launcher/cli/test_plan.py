"""`trillama plan` as a user runs it, with the embedded engine."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from launcher.cli.plan import given_memory
from launcher.errors import ArgumentError


async def plan(*arguments: str, cwd: Path) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "launcher", "plan", *arguments),
        cwd=cwd,
        env={**os.environ, "COLUMNS": "120", "TRILLAMA_CACHE": str(cwd)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return await process.wait(), output.decode()


def row(output: str, first: str) -> list[str]:
    (found,) = [line for line in output.splitlines() if line.startswith(f"│ {first} ")]
    return [cell.strip() for cell in found.strip("│").split("│")]


async def test_the_table_has_the_choice_its_numbers_and_the_reason(tmp_path: Path) -> None:
    config = tmp_path / "host.toml"
    config.write_text('[models]\nquantization = "auto"\n[engine]\ngpu_layers = 99\n')
    code, output = await plan("--config", str(config), "--vram", "8G,16G", "--ram", "64G", cwd=tmp_path)
    assert code == 0, output
    assert row(output, "retrieval")[1:4] == ["Q8_0", "GPU1", "4096"]
    assert row(output, "F16")[1].startswith("lacks ")
    assert "- the longest text is 4096 tokens: with 8192 it does not fit" in output


async def test_what_cannot_fit_ends_with_75_and_the_numbers(tmp_path: Path) -> None:
    code, output = await plan("--vram", "1G", cwd=tmp_path)
    assert code == 75
    assert "lacks" in row(output, "Q4_K_M")[1]
    assert "GiB of VRAM" in output.splitlines()[-1]


async def test_the_demo_models_fit_anywhere(tmp_path: Path) -> None:
    code, output = await plan("--demo", "--tiny", "--ram", "2G", cwd=tmp_path)
    assert code == 0, output
    assert row(output, "code")[2:4] == ["CPU", "4096"]
    assert "longest text" in output
    assert "longest text in tokens (llama-server's -ub)" in output
    assert "considered" not in output


@pytest.mark.parametrize("text", ["", "8", "8X", "8G;24G", "-1G", "8G,"])
def test_what_is_not_a_size_is_rejected_with_an_example(text: str) -> None:
    with pytest.raises(ArgumentError, match=r"--vram: .* is not a size: write 8G or 8192M, for each GPU"):
        given_memory(text, None)


def test_sizes_are_read_in_the_usual_spellings() -> None:
    memory = given_memory("8G, 1.5GiB,512MB", "16g")
    assert (memory.vram, memory.ram) == ((8 << 30, 3 << 29, 512 << 20), 16 << 30)
    assert given_memory("none", None).vram == ()
    assert given_memory(None, None).vram is None
