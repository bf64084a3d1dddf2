"""What `trillama engine build` makes of a source that our patches fit, and of an engine that is miscompiled."""

import re
import sys
from pathlib import Path

import pytest

from launcher import engine_record
from launcher.build import build
from launcher.build_steps import Progress
from launcher.engine import find
from launcher.errors import EngineBuildError
from launcher.patch import FLAG, LEAN, TILES
from tests.launcher.machine import have
from tests.launcher.toolchain import COMPILE, INSTALLED, cmake, ignore, package, remains, script, texts_for


def editable(folder: Path, *, with_flag: str = "") -> None:
    """A source that our edit fits, and a compiler of engines that know the flag if the source does.

    Such an engine runs with the words `with_flag` where it is given the flag.
    """
    package(folder, texts_for(LEAN))
    engine = f"""
for word; do shift; if [ "$word" = {FLAG} ]; then set -- "$@" {with_flag}; else set -- "$@" "$word"; fi; done
if [ "$1" = --help ]; then echo "{FLAG}  as upstream's"; fi
exec {sys.executable} -P -m launcher.embedded "$@"
"""
    script(folder / "lean-engine", engine)
    copy = f'if grep -q -- {FLAG} {folder}/arg.cpp; then cp {folder}/lean-engine "$2/bin/llama-server"; fi'
    cmake(folder, configuring=f'cp "$2/common/arg.cpp" {folder}; exit 0', compiling=COMPILE + copy)


async def test_an_engine_with_our_edit_is_installed_as_its_vectors_stay_the_same(
    build_cache: Path, tmp_path: Path
) -> None:
    editable(tmp_path)
    seen: list[Progress] = []
    built = await build(cuda=False, stock=False, report=seen.append)
    assert "the vectors are the same to the last bit" in built.note
    assert seen[-1] == Progress(step="checking vectors")
    assert FLAG in (await find(None)).flags
    assert remains(build_cache) == INSTALLED


async def test_an_engine_whose_vectors_change_with_our_edit_is_not_installed(build_cache: Path, tmp_path: Path) -> None:
    editable(tmp_path, with_flag="--pooling last")
    with pytest.raises(EngineBuildError, match=rf"other vectors with {FLAG} on Q8_0, of texts of .*--stock"):
        await build(cuda=False, stock=False, report=ignore)
    assert remains(build_cache) == set()


async def test_stock_has_no_edit_of_ours_but_the_one_against_the_compilers_fault(
    build_cache: Path, tmp_path: Path
) -> None:
    package(tmp_path, texts_for(LEAN, TILES))
    copy = f'cp "$2/common/arg.cpp" "$2/{TILES.edits[0].path}" {tmp_path}; exit 0'
    cmake(tmp_path, configuring=copy, compiling=COMPILE)
    built = await build(cuda=False, stock=True, report=ignore)
    assert built.note.startswith("stock llama.cpp (as was asked)")
    assert "gcc's fault with AMX is worked around" in built.note
    assert FLAG not in (tmp_path / "arg.cpp").read_text()
    assert TILES.mark in (tmp_path / "mmq.cpp").read_text()
    assert remains(build_cache) == INSTALLED


def faulty_cmake(folder: Path, fault: str, *, unless: str) -> None:
    """A compiler whose engines have the line `fault` of shell, unless `unless` is among its flags."""
    insert = f"""
case "$CXXFLAGS" in *"{unless}"*) ;; *) sed -i '2i {fault}' "$2/bin/llama-server" ;; esac
"""
    cmake(folder, compiling=COMPILE + insert)


DIES = '[ "$1" != {} ] || kill -ILL $$'
FAULTS = [
    (DIES.format("--version"), "what was built dies of SIGILL when it is asked for its version"),
    (DIES.format("--model"), "what was built dies of SIGILL on Q8_0"),
    (
        'case "$*" in *in-F32*) ;; *--model*) set -- "$@" --pooling last ;; esac',
        r"what was built computes wrong vectors on Q8_0: a cosine of 0\.\d{4} to those in F32",
    ),
]


@pytest.mark.parametrize(("fault", "said"), FAULTS)
async def test_what_is_miscompiled_is_built_again_without_amx_and_that_is_said(
    build_cache: Path, tmp_path: Path, fault: str, said: str
) -> None:
    seen: list[Progress] = []
    faulty_cmake(tmp_path, fault, unless="-mno-amx-tile -mno-amx-int8 -mno-amx-bf16")
    built = await build(cuda=False, stock=False, report=seen.append)
    assert re.search(rf"; it does not use AMX: with it, {said}; its vectors agree", built.note)
    assert "compiling without AMX" in {progress.step for progress in seen}
    assert remains(build_cache) == INSTALLED
    record = engine_record.read(built.path)
    assert record is not None
    assert record.missing({"avx512f"}) == []


async def test_an_engine_that_dies_without_amx_too_is_not_installed_and_both_are_said(
    build_cache: Path, tmp_path: Path
) -> None:
    faulty_cmake(tmp_path, DIES.format("--model"), unless="-mno-other")
    dies = "what was built dies of SIGILL on Q8_0"
    with pytest.raises(EngineBuildError, match=f"^{dies}; compiled again without AMX, {dies}$"):
        await build(cuda=False, stock=False, report=ignore)
    assert remains(build_cache) == set()


@pytest.mark.parametrize(("flags", "cuda"), [("avx512f", False), ("avx512f amx_int8", True)])
async def test_where_amx_is_not_to_blame_nothing_is_built_again(
    build_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, cuda: bool
) -> None:
    have(tmp_path, monkeypatch, flags)
    script(tmp_path / "bin" / "nvcc", "")
    faulty_cmake(tmp_path, DIES.format("--version"), unless="-mno-amx-tile")
    with pytest.raises(EngineBuildError, match=r"dies of SIGILL when it is asked for its version$"):
        await build(cuda=cuda, stock=False, report=ignore)
    assert remains(build_cache) == set()
