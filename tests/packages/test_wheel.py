"""The wheel alone: installed into a bare environment, far from this checkout, it serves."""

import hashlib
import json
import os
import subprocess
import sys
import urllib.request
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from launcher import __version__
from tests.packages.conftest import ROOT, TOOLS, Built, build, only

INSTALL_TIMEOUT_S = 300  # 30 s where nothing else runs

pytestmark = pytest.mark.timeout(400)  # the first test of each fixture installs


def run(argv: tuple[str, ...], env: Mapping[str, str], folder: Path) -> tuple[int, str]:
    """A command's exit code and output."""
    done = subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def env(home: Path) -> dict[str, str]:
    """An environment that knows neither this checkout nor this machine's models."""
    return {"HOME": str(home), "PATH": "/usr/bin:/bin", "NO_COLOR": "1", "COLUMNS": "200"}


@pytest.fixture(scope="module")
def trillama(built: Built, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The command in a bare virtual environment into which pip has installed the wheel."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run((sys.executable, "-m", "venv", str(folder)), check=True, timeout=INSTALL_TIMEOUT_S)
    python, options = str(folder / "bin" / "python"), ("--quiet", "--no-compile", "--constraint", "constraints.txt")
    pip = (python, "-m", "pip", "install", *options)
    done = subprocess.run(
        (*pip, str(built.wheel)), cwd=ROOT, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stderr
    return str(folder / "bin" / "trillama")


def test_the_sdist_builds_the_wheel_of_the_checkout(built: Built, tmp_path: Path) -> None:
    build(tmp_path, "--wheel")
    assert digests(built.wheel) == digests(only(tmp_path, "*.whl"))


def digests(wheel: Path) -> dict[str, str]:
    """The SHA-256 of each file in it."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: hashlib.sha256(archive.read(name)).hexdigest() for name in archive.namelist()}


def test_the_metadata_is_what_an_index_accepts(built: Built) -> None:
    argv = (str(TOOLS / "twine"), "check", "--strict", str(built.wheel), str(built.sdist))
    code, printed = run(argv, dict(os.environ), ROOT)
    assert (code, printed.count("PASSED")) == (0, 2), printed


def test_every_configuration_is_in_the_wheel(built: Built) -> None:
    here = {f"launcher/{path.relative_to(ROOT)}" for path in (ROOT / "configs").rglob("*") if path.is_file()}
    assert here <= digests(built.wheel).keys()


def test_the_version_stands_once(built: Built, trillama: str, env: dict[str, str], home: Path) -> None:
    assert built.wheel.name == f"trillama-{__version__}-py3-none-any.whl"
    ask = "from importlib.metadata import version; import launcher; print(version('trillama'), launcher.__version__)"
    code, printed = run((str(Path(trillama).with_name("python")), "-c", ask), env, home)
    assert (code, printed) == (0, f"{__version__} {__version__}\n")
    assert run((trillama, "--version"), env, home) == (0, f"trillama {__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("families",), "jina-embeddings-v4: 2048 dimensions"),
        (("doctor", "--demo", "--tiny", "--json"), '"valid; the family is '),
        (("service", "install", "--user", "--dry-run"), "-P -m launcher serve"),
        (("plan", "--vram", "24G", "--ram", "32G"), "Q4_K_M is set"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_command_works_without_the_checkout(
    trillama: str, env: dict[str, str], home: Path, arguments: tuple[str, ...], text: str
) -> None:
    code, printed = run((trillama, *arguments), env, home)
    assert code == 0, printed
    assert text in printed


def test_the_demo_serves(trillama: str, env: dict[str, str], home: Path) -> None:
    with served(trillama, env, home) as url:
        body = json.dumps({"input": ["overheating lightsaber"], "task": "retrieval.query"}).encode()
        request = urllib.request.Request(f"{url}/v1/embeddings", body, {"Content-Type": "application/json"})  # noqa: S310 # our own URL
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 # our own URL
            assert len(json.load(answer)["data"][0]["embedding"]) == 2048


@contextmanager
def served(trillama: str, env: Mapping[str, str], folder: Path) -> Iterator[str]:
    """The URL of `trillama serve --demo --tiny`, once it says that it is ready."""
    argv = (trillama, "serve", "--demo", "--tiny", "--port", "0")
    with subprocess.Popen(argv, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as it:
        assert it.stdout
        try:
            lines = []
            for line in it.stdout:
                lines.append(line)
                if " is ready at " in line:
                    yield line.split(" is ready at ")[1].split()[0]
                    break
            else:
                pytest.fail("".join(lines))
        finally:
            it.terminate()
            it.stdout.read()
            assert it.wait(timeout=30) == 0
