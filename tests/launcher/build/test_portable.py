"""`--out DIR`: an engine with its libraries, which runs from wherever it is moved."""

import subprocess
from pathlib import Path

import pytest

from launcher.build import portable
from launcher.build.build import BuildOptions, build, up_to_date
from launcher.engine import build_record
from launcher.engine.build_record import Order, Record
from launcher.errors import EngineBuildError
from tests.support.sources.toolchain import COMPILE, cmake, ignore, remains

RECORD = Record(order=Order(source="s", stock=False, instructions=()), processor="p", note="n")


def compile_c(folder: Path, *argv: str, text: str) -> None:
    (folder / "it.c").write_text(text)
    subprocess.run(("/usr/bin/env", "cc", "it.c", *argv), cwd=folder, check=True)


def test_a_moved_folder_runs_with_its_own_libraries(tmp_path: Path) -> None:
    built, toolkit = tmp_path / "build" / "bin", tmp_path / "toolkit"
    built.mkdir(parents=True)
    toolkit.mkdir()
    compile_c(toolkit, "-shared", "-o", "libof.so.13.1", "-Wl,-soname,libof.so.13", text="int of(void) { return 7; }")
    (toolkit / "libof.so.13").symlink_to("libof.so.13.1")
    own, rpath = (f"-L{toolkit}", "-l:libof.so.13"), f"-Wl,-rpath,$ORIGIN:{toolkit}"
    compile_c(built, "-o", "llama-server", *own, rpath, text="int of(void); int main(void) { return of(); }")
    engine = portable.install_folder(built, tmp_path / "out", RECORD)
    assert {path.name for path in engine.parent.iterdir()} == {"llama-server", "llama-server.json", "libof.so.13"}
    (tmp_path / "out").rename(tmp_path / "moved")
    (tmp_path / "toolkit").rename(tmp_path / "gone")
    assert subprocess.run((tmp_path / "moved" / "llama-server",), check=False).returncode == 7
    assert build_record.read_record(tmp_path / "moved" / "llama-server") == RECORD


async def test_it_is_built_there_and_the_cache_folder_stays_as_it_was(build_cache: Path, tmp_path: Path) -> None:
    bench = 'printf "#!/bin/sh\\n" > "$2/bin/llama-bench"'
    cmake(tmp_path, configuring=f'echo "$@" > {tmp_path}/configured; exit 0', compiling=f"{COMPILE}\n{bench}")
    wanted = BuildOptions(out=tmp_path / "out")
    (tmp_path / "out").mkdir()
    built = await build(wanted, ignore)
    assert built.path == tmp_path / "out" / "llama-server"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"llama-server", "llama-server.json", "llama-bench"}
    assert remains(build_cache) == set()
    assert "-DBUILD_SHARED_LIBS=ON" in (tmp_path / "configured").read_text()
    assert await up_to_date(wanted) == built
    assert await up_to_date(BuildOptions()) is None
    portable.require_free(tmp_path / "out")  # it may be built again


def test_a_folder_with_something_else_is_not_replaced(tmp_path: Path) -> None:
    portable.require_free(tmp_path)
    (tmp_path / "mine").touch()
    for out in (tmp_path, tmp_path / "mine"):
        with pytest.raises(EngineBuildError, match="contains something other than an engine"):
            portable.require_free(out)
