"""Fixtures of the launcher's tests."""

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest
import tomli_w

from launcher.conversion.gguf_writer import finish_file
from tests.launcher.models.test_sources import write_gguf
from tests.support.host.machine import have
from tests.support.servers.stack import FAMILY_FILE
from tests.support.servers.trillama import commands
from tests.support.sources.hub import running_hub
from tests.support.sources.place import BACKENDS, Place, home_env
from tests.support.sources.toolchain import COMPILE, cmake, package, quick_check, script


@pytest.fixture(scope="session")
def shared_place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """What is slow to make: see `place`."""
    folder = tmp_path_factory.mktemp("place")
    family = tomllib.loads(FAMILY_FILE.read_text(encoding="utf-8"))
    small = {**family, "dimensions": 64, "trained_dimensions": [64]}
    (folder / "small.toml").write_text(tomli_w.dumps(small), encoding="utf-8")
    with running_hub() as hub, commands(home_env(hub, folder / "home")) as run:
        yield Place(hub, folder / "home", folder / "host.toml", run)


@pytest.fixture
def place(shared_place: Place, small: dict[str, bytes]) -> Place:
    """A hub with two quantisations of each model, nothing at home, and a configuration without settings."""
    place, hub = shared_place, shared_place.hub
    shutil.rmtree(place.home, ignore_errors=True)
    place.configure()
    hub.reset()
    for backend in BACKENDS:
        place.put(backend, "Q4_K_M", small[backend])
        place.put(backend, "Q8_0", small[backend] + b"larger")
    return place


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A whole GGUF of some kilobytes per backend, each another."""
    path = write_gguf(tmp_path_factory.mktemp("gguf") / "m.gguf")
    return {backend: path.read_bytes() + backend.encode() for backend in BACKENDS}


@pytest.fixture(scope="session")
def big(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A whole GGUF of 25 MiB: the client keeps what has arrived in pieces of 10 MiB."""
    path = tmp_path_factory.mktemp("gguf") / "m.gguf"
    writer = gguf.GGUFWriter(path, "qwen2vl")
    writer.add_embedding_length(64)
    writer.add_tensor(
        "token_embd.weight",
        np.random.default_rng(0).integers(0, 15360, (204_800, 64)).astype(np.int16).view(np.float16),
    )
    finish_file(writer)
    return path.read_bytes()


@pytest.fixture(scope="session")
def python_with_venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python, which copies a virtual environment that was made once: pip takes three seconds to get into a new one."""
    folder = tmp_path_factory.mktemp("python")
    subprocess.run((sys.executable, "-m", "venv", folder / "venv"), check=True)
    script(folder / "python", f'if [ "$2" = venv ]; then exec cp -a {folder}/venv "$3"; fi; exec {sys.executable} "$@"')
    return folder / "python"


@pytest.fixture
def build_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, python_with_venv: Path) -> Path:
    """A machine whose package index has only a small package of the right name, and whose compilers are empty.

    Its processor has AMX.
    """
    have(tmp_path, monkeypatch, "avx512f amx_tile amx_int8")
    quick_check(monkeypatch, "Q8_0")
    monkeypatch.setattr(sys, "executable", str(python_with_venv))
    monkeypatch.setenv("TRILLAMA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", os.pathsep.join((str(tmp_path / "bin"), "/usr/bin", "/bin")))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    package(tmp_path, {})
    for tool in ("cc", "c++", "ninja"):
        script(tmp_path / "bin" / tool, "")
    cmake(tmp_path, compiling=COMPILE)
    return tmp_path / "cache"
