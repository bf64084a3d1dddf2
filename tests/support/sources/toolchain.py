"""A package and compilers of a few lines for `trillama engine build`: what they make is the embedded engine."""

import io
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from launcher.build.checks import models as check_models
from launcher.build.checks import vectors as check
from launcher.build.patches.patch import Patch
from launcher.build.source import LLAMA
from launcher.build.steps import Progress

INSTALLED = {"llama-server", "llama-server.json"}
BACKEND = """
from pathlib import Path
def prepare_metadata_for_build_wheel(directory, config_settings=None):
    info = Path(directory, "llama_cpp_python-0.3.36.dist-info")
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\\nName: llama-cpp-python\\nVersion: 0.3.36\\n")
    return info.name
"""
PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""
COMPILE = f"""
mkdir -p "$2/bin"
echo "[1/2] Building CXX object server.cpp.o"
printf '#!/bin/sh\\nexec {sys.executable} -P -m launcher.engine.embedded "$@"\\n' > "$2/bin/llama-server"
chmod +x "$2/bin/llama-server"
echo "[2/2] Linking CXX executable bin/llama-server"
"""
DIES = '[ "$1" != {} ] || kill -ILL $$'


def package(folder: Path, sources: Mapping[str, str]) -> None:
    """The package with these files as llama.cpp's source."""
    texts = {
        "PKG-INFO": "Metadata-Version: 2.1\nName: llama-cpp-python\nVersion: 0.3.36\n",
        "pyproject.toml": PYPROJECT,
        "backend.py": BACKEND,
        **{f"vendor/llama.cpp/{path}": text for path, text in (dict.fromkeys(LLAMA, "") | dict(sources)).items()},
    }
    with tarfile.open(folder / "llama_cpp_python-0.3.36.tar.gz", "w:gz") as archive:
        for name, text in texts.items():
            entry = tarfile.TarInfo(f"llama_cpp_python-0.3.36/{name}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))


def script(path: Path, body: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def cmake(folder: Path, *, compiling: str, configuring: str = "exit 0") -> None:
    script(folder / "bin" / "cmake", f'if [ "$1" != --build ]; then {configuring}\nfi\n{compiling}')


def faulty_cmake(folder: Path, fault: str, *, unless: str) -> None:
    """A compiler whose engines have the line `fault` of shell, unless `unless` is among its flags."""
    insert = f"""
case "$CXXFLAGS" in *"{unless}"*) ;; *) sed -i '2i {fault}' "$2/bin/llama-server" ;; esac
"""
    cmake(folder, compiling=COMPILE + insert)


def ignore(_: Progress) -> None:
    """A report that nobody reads."""


def remains(cache: Path) -> set[str]:
    return {path.name for path in (cache / "engine").iterdir()} - {".lock"}


def texts_for(*patches: Patch) -> dict[str, str]:
    """The files that the patches fit, by path."""
    texts: dict[str, str] = {}
    for edit in (edit for patch in patches for edit in patch.edits):
        texts[edit.path] = texts.get(edit.path, "") + edit.text + "\n"
    return texts


def quick_check(monkeypatch: pytest.MonkeyPatch, quantization: str) -> None:
    """Check an engine on one quantisation and few tokens: the embedded one takes a second for all of them each time."""
    monkeypatch.setattr(check_models, "QUANTIZATIONS", {quantization: check_models.QUANTIZATIONS[quantization]})
    monkeypatch.setattr(check, "BATCHES", ((5,), (1, 60, 17)))
