"""`trillama doctor` on a host where something named as Ray's processes listens."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from launcher.doctor.cluster import ray_token
from launcher.doctor.finding import Level

LISTEN = """
import socket, time
listener = socket.create_server(("0.0.0.0", 0))
print(listener.getsockname()[1], flush=True)
time.sleep(60)
"""


@contextmanager
def raylet(folder: Path, **env: str) -> Iterator[str]:
    """A process of that name which listens on every address; the port."""
    program = folder / "raylet"
    shutil.copy(Path(sys.executable).resolve(), program)
    home = {"PYTHONHOME": sys.base_prefix, **env}
    with subprocess.Popen((str(program), "-c", LISTEN), env=home, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        yield process.stdout.readline().strip()
        process.kill()


def test_a_ray_without_a_token_is_a_warning(tmp_path: Path) -> None:
    with raylet(tmp_path) as port:
        finding = ray_token()
    assert finding.level is Level.WARN
    assert port in finding.text
    assert "runs programs here" in finding.text


def test_a_ray_with_a_token_is_ok_and_its_ports_are_named(tmp_path: Path) -> None:
    with raylet(tmp_path, RAY_AUTH_MODE="token") as port:
        finding = ray_token()
    assert finding.level is Level.OK
    assert port in finding.text
