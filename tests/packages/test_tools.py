"""The wheel as pipx and uv install it: a command of its own, in an environment of its own."""

import os
import subprocess
from pathlib import Path

import pytest

from launcher import __version__
from tests.packages.conftest import ROOT, TOOLS, Built

INSTALL = {
    "pipx": ("pipx", "install", "--pip-args=--constraint=constraints.txt"),
    "uv": ("uv", "tool", "install", "--constraint", "constraints.txt"),
}


@pytest.mark.timeout(400)
@pytest.mark.parametrize("tool", INSTALL)
def test_a_tool_installs_the_command(built: Built, tmp_path: Path, tool: str) -> None:
    name, *options = INSTALL[tool]
    places = {"PIPX_HOME": "pipx", "PIPX_BIN_DIR": "bin", "UV_TOOL_DIR": "uv", "UV_TOOL_BIN_DIR": "bin"}
    env = {**os.environ, **{variable: str(tmp_path / folder) for variable, folder in places.items()}}
    argv = (str(TOOLS / name), *options, str(built.wheel))
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    command = str(tmp_path / "bin" / "trillama")
    for arguments, text in (("--version",), f"trillama {__version__}"), (("families",), "jina-embeddings-v4"):
        env = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
        done = subprocess.run(
            (command, *arguments), cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        assert text in done.stdout
