"""`trillama engine build` with everything real but the source and the compiler, which take five minutes."""

import asyncio
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from launcher.build.build import BuildOptions, Built, build, order_here, up_to_date
from launcher.build.patches.lean import FLAG, LEAN
from launcher.build.patches.media import MEDIA_FLAG
from launcher.build.patches.tiles import TILES
from launcher.build.steps import Progress, parse_progress
from launcher.engine import build_record
from launcher.engine.argv import REQUIRED_FLAGS
from launcher.engine.build_record import ComputeBackend, Record
from launcher.engine.discovery import Origin, find_engine
from launcher.errors import EngineBuildError
from tests.support.host.machine import have
from tests.support.servers.trillama import trillama
from tests.support.sources.toolchain import (
    COMPILE,
    DIES,
    INSTALLED,
    cmake,
    faulty_cmake,
    ignore,
    package,
    remains,
    script,
    texts_for,
)


async def test_what_is_built_is_the_engine_that_is_found_next(build_cache: Path) -> None:
    seen: list[Progress] = []
    built = await build(BuildOptions(), seen.append)
    path = built.path
    assert re.fullmatch(
        r"stock llama.cpp \(it has no common/arg.cpp\): it computes logits, which are not used; "
        r"it takes no images \(it has no common/arg.cpp\); "
        r"llama.cpp.s own AMX code \(it has no ggml/src/ggml-cpu/amx/mmq.cpp\); "
        r"its vectors agree with F32 to a cosine of 0\.999\d",
        built.note,
    )
    assert path == build_cache / "engine" / "llama-server"
    assert remains(build_cache) == INSTALLED
    steps = list(dict.fromkeys(progress.step for progress in seen))
    expected = ["preparing", "downloading llama.cpp", "unpacking", "configuring", "compiling", "checking vectors"]
    assert steps == expected
    assert Progress(step="compiling", done=2, total=2) in seen
    assert ((found := await find_engine(None)).origin, found.argv) == (Origin.BUILT, (str(path),))


async def test_a_build_that_fails_tells_the_last_lines_and_leaves_the_engine_that_was_there(
    build_cache: Path, tmp_path: Path
) -> None:
    script(build_cache / "engine" / "llama-server", "echo the old one")
    cmake(tmp_path, compiling="seq 30; echo server.cpp:1: error: no >&2; exit 2")
    with pytest.raises(EngineBuildError, match=r"^compiling failed with 2:\n12\n(.*\n)+30\nserver.cpp:1: error: no$"):
        await build(BuildOptions(), ignore)
    assert remains(build_cache) == {"llama-server"}
    assert "the old one" in (build_cache / "engine" / "llama-server").read_text()


async def test_what_was_built_but_does_not_run_is_not_installed(build_cache: Path, tmp_path: Path) -> None:
    broken = COMPILE + 'echo \'#!/bin/sh\' >"$2/bin/llama-server"; echo exit 3 >>"$2/bin/llama-server"'
    cmake(tmp_path, compiling=broken)
    with pytest.raises(EngineBuildError, match=r"the built engine is unusable: .*--version ended with 3"):
        await build(BuildOptions(), ignore)
    assert remains(build_cache) == set()


def editable(folder: Path, *, with_flag: str = "") -> None:
    """A source that our edit fits, and a compiler of engines that know the flag if the source does.

    Such an engine runs with the words `with_flag` where it is given the flag.
    """
    package(folder, texts_for(LEAN))
    engine = f"""
for word; do shift; if [ "$word" = {FLAG} ]; then set -- "$@" {with_flag}; else set -- "$@" "$word"; fi; done
if [ "$1" = --help ]; then echo "{FLAG}  as upstream's"; fi
exec {sys.executable} -P -m launcher.engine.embedded "$@"
"""
    script(folder / "lean-engine", engine)
    copy = f'if grep -q -- {FLAG} {folder}/arg.cpp; then cp {folder}/lean-engine "$2/bin/llama-server"; fi'
    cmake(folder, configuring=f'cp "$2/common/arg.cpp" {folder}; exit 0', compiling=COMPILE + copy)


async def test_an_engine_with_our_edit_is_installed_as_its_vectors_stay_the_same(
    build_cache: Path, tmp_path: Path
) -> None:
    editable(tmp_path)
    seen: list[Progress] = []
    built = await build(BuildOptions(), seen.append)
    assert "its vectors are the same to the last bit" in built.note
    assert seen[-1] == Progress(step="checking vectors")
    assert FLAG in (await find_engine(None)).flags
    assert remains(build_cache) == INSTALLED


async def test_an_engine_whose_vectors_change_with_our_edit_is_not_installed(build_cache: Path, tmp_path: Path) -> None:
    editable(tmp_path, with_flag="--pooling last")
    with pytest.raises(EngineBuildError, match=rf"different vectors with {FLAG} on Q8_0, for texts of .*--stock"):
        await build(BuildOptions(), ignore)
    assert remains(build_cache) == set()


async def test_stock_has_no_edit_of_ours_but_the_one_against_the_compilers_fault(
    build_cache: Path, tmp_path: Path
) -> None:
    package(tmp_path, texts_for(LEAN, TILES))
    copy = f'cp "$2/common/arg.cpp" "$2/{TILES.edits[0].path}" {tmp_path}; exit 0'
    cmake(tmp_path, configuring=copy, compiling=COMPILE)
    built = await build(BuildOptions(stock=True), ignore)
    assert built.note.startswith("stock llama.cpp (as requested)")
    assert "gcc's fault with AMX is worked around" in built.note
    assert FLAG not in (tmp_path / "arg.cpp").read_text()
    assert TILES.mark in (tmp_path / "mmq.cpp").read_text()
    assert remains(build_cache) == INSTALLED


async def test_an_engine_for_texts_alone_is_lean_and_another_order(build_cache: Path, tmp_path: Path) -> None:
    package(tmp_path, texts_for(LEAN, TILES))
    cmake(tmp_path, configuring=f'cp "$2/common/arg.cpp" {tmp_path}; exit 0', compiling=COMPILE)
    built = await build(BuildOptions(without_images=True), ignore)
    assert "it takes no images (as requested)" in built.note
    text = (tmp_path / "arg.cpp").read_text()
    assert FLAG in text
    assert MEDIA_FLAG not in text
    assert await up_to_date(BuildOptions(without_images=True)) == built
    assert await up_to_date(BuildOptions()) is None
    record = build_record.read_record(built.path)
    assert record is not None
    assert record.order.command == "trillama engine build --no-images"


async def test_an_engine_that_was_built_again_without_amx_says_so_and_needs_none(
    build_cache: Path, tmp_path: Path
) -> None:
    faulty_cmake(tmp_path, DIES.format("--version"), unless="-mno-amx-int8")
    built = await build(BuildOptions(), ignore)
    fault = "the built engine dies of SIGILL on --version"
    assert f"; it does not use AMX: with AMX, {fault}; its vectors agree" in built.note
    assert remains(build_cache) == INSTALLED
    record = build_record.read_record(built.path)
    assert record is not None
    assert (record.note, record.missing_instructions({"avx512f"})) == (built.note, [])


async def test_it_is_up_to_date_on_the_same_processor_with_the_same_options(
    build_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await up_to_date(BuildOptions()) is None
    built = await build(BuildOptions(), ignore)
    assert await up_to_date(BuildOptions()) == built
    assert await up_to_date(BuildOptions(backend=ComputeBackend.CUDA)) is None
    assert await up_to_date(BuildOptions(stock=True)) is None
    for others in ("avx512f", "avx512f amx_tile amx_int8 avx512_fp16"):  # one that lacks some, one that has more
        with monkeypatch.context() as moved:
            have(tmp_path, moved, others)
            assert await up_to_date(BuildOptions()) is None
    have(tmp_path, monkeypatch, "amx_int8 avx512f amx_tile hypervisor")
    assert await up_to_date(BuildOptions()) == built
    with pytest.raises(EngineBuildError, match="there is no such file or folder"):
        await up_to_date(BuildOptions(source=tmp_path / "nowhere"))
    built.path.write_bytes(built.path.read_bytes()[:20])
    assert await up_to_date(BuildOptions()) is None  # it no longer runs


def test_an_engine_for_any_processor_needs_only_what_all_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    have(tmp_path, monkeypatch, "avx avx2 avx512f amx_tile fma")
    monkeypatch.setenv("CMAKE_ARGS", "-DGGML_LTO=ON '-DCMAKE_C_FLAGS=-O2 -g'")
    native = order_here(BuildOptions())
    assert native.cmake == ("-DGGML_LTO=ON", "-DCMAKE_C_FLAGS=-O2 -g")
    assert native.instructions == ("amx_tile", "avx", "avx2", "avx512f", "fma")
    monkeypatch.setenv("CMAKE_ARGS", "-DGGML_NATIVE=OFF")
    assert order_here(BuildOptions()).instructions == ("avx", "avx2", "fma")


def test_if_needed_builds_nothing_where_the_engine_is_up_to_date(tmp_path: Path) -> None:
    env = {"TRILLAMA_CACHE": str(tmp_path), "PATH": str(tmp_path)}  # without a compiler
    done = trillama("engine", "build", "--if-needed", env=env)
    assert (done.code, "there is no compiler" in done.err) == (70, True)
    final = tmp_path / "engine" / "llama-server"
    script(final.with_name("built"), f"printf '%s\\n' 'version: 1 (any)' {' '.join(REQUIRED_FLAGS)}")
    record = Record(order=order_here(BuildOptions()), processor="p", note="a note")
    build_record.install_build(final.with_name("built"), final, record)
    done = trillama("engine", "build", "--if-needed", env=env)
    assert (done.code, done.out) == (0, f"{final} is up to date: a note\n")


async def test_cancelling_ends_the_compilers_and_leaves_nothing(build_cache: Path, tmp_path: Path) -> None:
    compiler = tmp_path / "compiler.pid"
    cmake(tmp_path, compiling=f"sleep 1000 & echo $! > {compiler}.new; mv {compiler}.new {compiler}; wait")
    async with asyncio.timeout(60):
        building = asyncio.create_task(build(BuildOptions(), ignore))
        await until(compiler.exists, building)
        building.cancel()
        with pytest.raises(asyncio.CancelledError):
            await building
        await until(lambda: not runs(int(compiler.read_text())))
    assert remains(build_cache) == set()


async def test_a_second_build_is_refused_while_one_runs(build_cache: Path) -> None:
    (build_cache / "engine").mkdir(parents=True)
    with (
        FileLock(build_cache / "engine" / ".lock"),
        pytest.raises(EngineBuildError, match=r"another build is running in .*engine: wait"),
    ):
        await build(BuildOptions(), ignore)


async def test_without_a_compiler_nothing_is_written(build_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler -O3")
    with pytest.raises(EngineBuildError, match=r"no compiler no-such-compiler: .* or set \$CXX"):
        await build(BuildOptions(), ignore)
    assert not build_cache.exists()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("[17/206] Building CXX object a.o", Progress(step="s", done=17, total=206)),
        ("[206/206] Linking CXX executable bin/llama-server", Progress(step="s", done=206, total=206)),
        ("-- Configuring done [1/2]", Progress(step="s")),
        ("", Progress(step="s")),
    ],
)
def test_progress_is_read_from_ninja_s_last_line(line: str, expected: Progress) -> None:
    assert parse_progress("s", line) == expected


async def until(condition: Callable[[], bool], task: asyncio.Task[Built] | None = None) -> None:
    while not condition():
        assert task is None or not task.done(), task
        await asyncio.sleep(0.02)


def runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]
