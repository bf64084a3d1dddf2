"""Finds libgomp for the embedded engine, which is linked to it; a bare Debian or Ubuntu has none."""

import ctypes
import importlib.util
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from launcher.errors import EngineError

SONAME = "libgomp.so.1"


def openmp_environment(env: Mapping[str, str], folder: Path) -> Mapping[str, str]:
    """`env` in which the embedded engine finds libgomp; `folder` is created for it if the system has none.

    Raises EngineError naming the package to install if there is none at all.
    """
    return env if sys.platform != "linux" or _on_system() else bundled_environment(env, folder)


def bundled_environment(env: Mapping[str, str], folder: Path) -> Mapping[str, str]:
    """`env` with `folder` on the loader's path, where a package's bundled libgomp is linked under its real name.

    The wheel of pykdtree bundles one, under a name that no other library looks for.
    """
    library = _bundled()
    if library is None:
        raise EngineError(
            f"the embedded llama.cpp needs {SONAME}, which is missing: apt-get install libgomp1, or apk add libgomp"
        )
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / f"{SONAME}.{os.getpid()}"
    link.unlink(missing_ok=True)
    link.symlink_to(library)
    link.replace(folder / SONAME)  # atomically: another trillama may be starting
    paths = filter(None, (env.get("LD_LIBRARY_PATH"), str(folder.absolute())))
    return {**env, "LD_LIBRARY_PATH": os.pathsep.join(paths)}


def _on_system() -> bool:
    try:
        ctypes.CDLL(SONAME)
    except OSError:
        return False
    return True


def _bundled() -> Path | None:
    package = importlib.util.find_spec("pykdtree")
    if package is None or package.origin is None:
        return None
    libraries = Path(package.origin).parent.parent / "pykdtree.libs"
    return next(libraries.glob("libgomp*.so*"), None)
