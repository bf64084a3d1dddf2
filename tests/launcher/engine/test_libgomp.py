"""A machine without libgomp: the one out of a package takes its place."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.engine.libgomp import SONAME, bundled_environment, openmp_environment

linux = pytest.mark.skipif(sys.platform != "linux", reason="only the wheels for Linux are linked to libgomp")
LOAD = f"import ctypes; ctypes.CDLL({SONAME!r}).omp_get_max_threads(); print(open('/proc/self/maps').read())"


@linux
def test_a_child_loads_the_bundled_library_by_the_system_s_name(tmp_path: Path) -> None:
    folder = tmp_path / "lib"
    env = bundled_environment(os.environ, folder)
    maps = subprocess.run((sys.executable, "-c", LOAD), env=env, capture_output=True, text=True, check=True).stdout
    assert "pykdtree.libs/libgomp" in maps
    assert [path.name for path in folder.iterdir()] == [SONAME]


@linux
def test_a_second_start_replaces_a_link_into_an_environment_that_is_gone(tmp_path: Path) -> None:
    (tmp_path / SONAME).symlink_to("/nonexistent/libgomp.so")
    bundled_environment({}, tmp_path)
    assert (tmp_path / SONAME).is_file()


@linux
def test_the_user_s_own_library_path_comes_first(tmp_path: Path) -> None:
    env = bundled_environment({"LD_LIBRARY_PATH": "/opt/cuda/lib64"}, tmp_path)
    assert env["LD_LIBRARY_PATH"] == f"/opt/cuda/lib64:{tmp_path}"


@pytest.mark.skipif(not Path("/lib/x86_64-linux-gnu", SONAME).exists(), reason="needs a system that has libgomp")
def test_a_machine_that_has_it_is_left_as_it_is(tmp_path: Path) -> None:
    assert openmp_environment({"PATH": "/bin"}, tmp_path / "lib") == {"PATH": "/bin"}
    assert not (tmp_path / "lib").exists()
