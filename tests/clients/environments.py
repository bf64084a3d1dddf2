"""An environment per client package, made on first use and kept in `.venv/clients` until its requirements change."""

import hashlib
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

REQUIREMENTS = Path(__file__).parent / "requirements"
KEPT = Path(__file__).parents[2] / ".venv" / "clients"
INSTALL_TIMEOUT_S = 600
MODULES = "node_modules"


class CannotInstall(Exception):
    """pip, npm or apt-get failed; `args[0]` is the end of its output."""


@dataclass(frozen=True, slots=True)
class PythonEnvironment:
    """The packages pinned in `requirements/<name>.txt`; `alone` leaves out their dependencies."""

    name: str
    alone: bool = False

    def ready(self) -> Path:
        """The folder of the environment, made if need be. Raises CannotInstall."""
        recipe = REQUIREMENTS / f"{self.name}.txt"
        return _kept(self.name, recipe.read_bytes() + sys.version.encode(), lambda folder: self._make(folder, recipe))

    def argv(self, script: Path) -> tuple[str, ...]:
        """The command that runs `script` in it; -P, as a script may have the name of the package it imports."""
        return (str(_python(self.ready())), "-P", str(script))

    def packages(self) -> Path:
        """The folder of its packages."""
        folder = str(self.ready())
        return Path(sysconfig.get_path("purelib", "venv", {"base": folder, "platbase": folder}))

    def _make(self, folder: Path, recipe: Path) -> None:
        venv.create(folder, with_pip=False, symlinks=True)
        pip = (sys.executable, "-m", "pip", "--python", str(_python(folder)), "--disable-pip-version-check")
        _run(*pip, "install", "--quiet", "--no-input", *["--no-deps"] * self.alone, "--requirement", str(recipe))


@dataclass(frozen=True, slots=True)
class NodeEnvironment:
    """The packages pinned in `requirements/<name>/package.json`."""

    name: str

    def ready(self) -> Path:
        """The folder of the environment, made if need be. Raises CannotInstall."""
        recipe = REQUIREMENTS / self.name / "package.json"
        return _kept(self.name, recipe.read_bytes(), lambda folder: self._make(folder, recipe))

    def argv(self, script: Path) -> tuple[str, ...]:
        """The command that runs `script` in it: Node looks for packages beside the script."""
        beside = script.with_name(MODULES)
        if not beside.exists():
            beside.symlink_to(self.ready() / MODULES)
        return (_program("node"), str(script))

    def _make(self, folder: Path, recipe: Path) -> None:
        folder.mkdir(parents=True)
        shutil.copy(recipe, folder)
        options = ("--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error")
        _run(_program("npm"), "install", *options, "--prefix", str(folder))


@dataclass(frozen=True, slots=True)
class DebianPackage:
    """A package of the machine's Debian, unpacked without being installed."""

    name: str

    def program(self, name: str) -> Path:
        """The program of that name, unpacked if need be. Raises CannotInstall."""
        return _kept(self.name, self.name.encode(), self._make) / "usr" / "bin" / name

    def _make(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        _run(_program("apt-get"), "download", self.name, folder=folder)
        (archive,) = folder.glob("*.deb")
        _run(_program("dpkg"), "--extract", str(archive), str(folder))
        archive.unlink()


Environment = PythonEnvironment | NodeEnvironment

CL100K = PythonEnvironment("cl100k", alone=True)


def vocabulary() -> Path:
    """A folder for TIKTOKEN_CACHE_DIR with cl100k in it: tiktoken alone would fetch it from the network."""
    return CL100K.packages() / "llama_index" / "core" / "_static" / "tiktoken_cache"


def _kept(name: str, recipe: bytes, make: Callable[[Path], None]) -> Path:
    """The folder that `make` filled for exactly this recipe; those of older ones are removed."""
    folder = KEPT / name / hashlib.sha256(recipe).hexdigest()[:12]
    done = folder / "complete"
    KEPT.mkdir(parents=True, exist_ok=True)
    with FileLock(KEPT / f"{name}.lock", timeout=INSTALL_TIMEOUT_S):
        if not done.exists():
            shutil.rmtree(folder.parent, ignore_errors=True)
            make(folder)
            done.touch()
    return folder


def _python(folder: Path) -> Path:
    return folder / "bin" / "python"


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise CannotInstall(f"{name} is not on PATH")
    return found


def _run(*argv: str, folder: Path | None = None) -> None:
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False)
    if done.returncode:
        raise CannotInstall(f"{' '.join(argv)}: {(done.stdout + done.stderr)[-2000:]}")
