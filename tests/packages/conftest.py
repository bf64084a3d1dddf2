"""What the tests of the packages share: a wheel and an sdist of this checkout."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / ".venv-release" / "bin"
BUILD_TIMEOUT_S = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """The files of one build."""

    wheel: Path
    sdist: Path


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The sdist of this checkout, and the wheel made from that sdist alone."""
    folder = tmp_path_factory.mktemp("dist")
    build(folder)
    return Built(wheel=only(folder, "*.whl"), sdist=only(folder, "*.tar.gz"))


def build(folder: Path, *options: str) -> None:
    """Run `python -m build` of this checkout into the folder; skips the test without the tools of `make release`."""
    if not TOOLS.is_dir():
        pytest.skip("the tools of a release are missing: make test-wheel, or make test-packages")
    argv = (str(TOOLS / "python"), "-m", "build", *options, "--outdir", str(folder), str(ROOT))
    done = subprocess.run(argv, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def only(folder: Path, pattern: str) -> Path:
    """The one file of that pattern."""
    (found,) = folder.glob(pattern)
    return found
