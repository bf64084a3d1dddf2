"""libgomp for the embedded engine, which is linked to it: a bare Debian or Ubuntu has none."""

import ctypes
import importlib.util
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from launcher.errors import EngineError

SONAME = "libgomp.so.1"


def openmp_environment(env: Mapping[str, str], folder: Path) -> Mapping[str, str]:
    """`env`, with what lets the embedded engine find libgomp; `folder` is made for it if the system has none.

    Raises EngineError with the package to install if there is none at all.
    """
    return env if sys.platform != "linux" or _on_system() else bundled_environment(env, folder)


def bundled_environment(env: Mapping[str, str], folder: Path) -> Mapping[str, str]:
    """`env` with `folder` on the loader's path, where the libgomp that came with a package goes by its own name.

    The wheel of pykdtree has one beside it, under a name that no other package's library asks for.
    """
    library = _bundled()
    if library is None:
        raise EngineError(
            f"{SONAME} is missing, which the embedded llama.cpp needs: apt-get install libgomp1, or apk add libgomp"
        )
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / f"{SONAME}.{os.getpid()}"
    link.unlink(missing_ok=True)
    link.symlink_to(library)
    link.replace(folder / SONAME)  # at once: another trillama may be starting
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
