"""What `trillama -h` shows on a terminal of 80 columns, and what a command loads."""

import subprocess
import sys
from pathlib import Path

from tests.support.servers.trillama import commands


def test_no_command_s_description_is_cut(tmp_path: Path) -> None:
    with commands({"TRILLAMA_CACHE": str(tmp_path), "COLUMNS": "80"}) as run:
        for group in ([], ["corpus"], ["models"], ["engine"], ["families"], ["service"]):
            shown = run(*group, "-h")
            assert shown.code == 0, shown.err
            listed = shown.out.partition("Commands:")[2]
            assert "..." not in listed, listed


def test_a_command_loads_its_own_modules_alone() -> None:
    program = """
import sys
from launcher.cli.app import app
try:
    app(["status", "--help"])
finally:
    print("loaded:", {"huggingface_hub", "numpy", "launcher.fleet.fleet", "launcher.cli.models"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "Show what a running trillama does" in done.stdout
    assert done.stdout.endswith("loaded: set()\n"), done.stdout
