"""A log in words is harmless on a terminal: a proxy's own messages quote files and engines of strangers."""

import subprocess
import sys
from pathlib import Path


def test_the_proxys_log_cannot_control_a_terminal(tmp_path: Path) -> None:
    path = tmp_path / "a\x1b[2J\u202e.toml"
    done = subprocess.run(
        (sys.executable, "-m", "proxy", "--config", str(path)), capture_output=True, text=True, check=False
    )
    assert done.returncode == 78
    assert r"a\x1b[2J\u202e.toml" in done.stderr
