"""Which llama-server is taken, and what is said when it cannot be."""

import sys
from pathlib import Path

import pytest

from launcher.engine import build_record, discovery
from launcher.engine.argv import REQUIRED_FLAGS
from launcher.engine.build_record import ComputeBackend, Order, Record
from launcher.engine.discovery import Origin, built_path, find_engine, parse_flags, parse_version
from launcher.errors import EngineError
from launcher.host import processor
from tests.support.host.machine import have

GOOD_HELP = "\n".join(f"{flag:<40}what it does" for flag in sorted(REQUIRED_FLAGS))


@pytest.fixture(autouse=True)
def _bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without any llama-server: nothing built, nothing on PATH."""
    monkeypatch.setenv("TRILLAMA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))


def script(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def llama_server(path: Path, *, version: str = "1 (abc)", help_text: str = GOOD_HELP) -> Path:
    """What answers `--version` (on stderr, as the real one does) and `--help` like a llama-server."""
    answer = f'if [ "$1" = --version ]; then echo "version: {version}" >&2; else echo "{help_text}"; fi'
    return script(path, answer)


async def test_the_order_is_configured_built_on_path(tmp_path: Path) -> None:
    on_path = llama_server(tmp_path / "path" / "llama-server", version="3 (path)")
    assert ((found := await find_engine(None)).origin, found.argv) == (Origin.PATH, (str(on_path),))
    llama_server(tmp_path / "cache" / "engine" / "llama-server", version="2 (built)")
    assert ((found := await find_engine(None)).origin, found.version) == (Origin.BUILT, "2 (built)")
    configured = llama_server(tmp_path / "mine", version="1 (mine)")
    assert ((found := await find_engine(configured)).origin, found.version) == (Origin.CONFIGURED, "1 (mine)")


async def test_a_bare_machine_gets_the_embedded_engine_even_beside_a_folder_of_our_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(tmp_path / "launcher" / "__init__.py", "raise SystemExit('this is not ours')")
    monkeypatch.chdir(tmp_path)
    found = await find_engine(None)
    assert found.origin is Origin.EMBEDDED
    assert found.argv[0] == sys.executable
    assert found.flags >= REQUIRED_FLAGS | {"--fit", "--no-ui"}


async def test_a_configured_engine_that_is_not_there_is_an_error_that_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"llama_server = .*/nowhere under \[engine\]: there is no such file"):
        await find_engine(tmp_path / "nowhere")


async def test_an_old_engine_on_path_is_refused_with_what_it_lacks_and_not_passed_over(tmp_path: Path) -> None:
    old = GOOD_HELP.replace("--kv-unified", "--kv-old    ").replace("--cache-ram", "--cache-old")
    llama_server(tmp_path / "path" / "llama-server", version="6000 (old)", help_text=old)
    with pytest.raises(
        EngineError,
        match=r"path/llama-server \(version 6000 \(old\)\) lacks --cache-ram, --kv-unified: .*trillama engine build",
    ):
        await find_engine(None)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("exit 0", "does not print a version"),
        ("echo something else", "does not print a version"),
        ("echo no such library >&2; exit 127", r"--version exited with 127; .*\nno such library"),
        ("exec /nonexistent/interpreter", "--version exited with"),
        ("kill -9 $$", "--version was killed by signal 9"),
        ("kill -ILL $$", r"--version was killed by signal 4 \(SIGILL: .* processor .*; run `trillama engine build`"),
        (
            "/bin/sh -c 'kill -ILL $$' || exit",
            r"--version was killed by signal 4 \(SIGILL: .* run `trillama engine build`",
        ),
    ],
)
async def test_what_is_no_working_llama_server_is_refused(tmp_path: Path, body: str, said: str) -> None:
    with pytest.raises(EngineError, match=said):
        await find_engine(script(tmp_path / "other", body))


def installed(
    path: Path, *, on: frozenset[str], left_out: tuple[str, ...] = (), backend: ComputeBackend = ComputeBackend.CPU
) -> Path:
    """An engine at `path` that `trillama engine build` made on a processor with those instructions."""
    order = Order(source="s", backend=backend, stock=False, instructions=tuple(sorted(on)))
    record = Record(order=order, processor="Other Processor", left_out=left_out, note="a note")
    build_record.install_build(llama_server(path.with_name("built")), path, record)
    return path


@pytest.mark.parametrize("configured", [False, True])
async def test_an_engine_of_another_processor_is_refused_by_name_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, configured: bool
) -> None:
    llama_server(tmp_path / "path" / "llama-server")  # which is not taken in its place
    place = tmp_path / ("mine/llama-server" if configured else "cache/engine/llama-server")
    place.parent.mkdir(parents=True)
    path = installed(place, on=frozenset({"avx2", "avx512f", "amx_int8"}), backend=ComputeBackend.CUDA)
    script(path, f"touch {tmp_path}/run")
    have(tmp_path, monkeypatch, "avx2")
    with pytest.raises(
        EngineError,
        match=r"llama-server was built for another processor \(Other Processor\) and needs amx_int8, avx512f, which "
        r"this one \(Some Processor\) does not have: run `trillama engine build --cuda` here",
    ):
        await find_engine(path if configured else None)
    assert not (tmp_path / "run").exists()


async def test_an_engine_runs_where_all_that_it_uses_is_there_or_nothing_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache" / "engine").mkdir(parents=True)
    path = installed(built_path(), on=frozenset({"avx512f", "amx_tile", "amx_int8"}), left_out=("amx_tile", "amx_int8"))
    have(tmp_path, monkeypatch, "avx2 avx512f gfni")
    assert (await find_engine(None)).origin is Origin.BUILT
    for unknown in ("", "{}", '{"order": 1}'):
        path.with_name("llama-server.json").write_text(unknown)
        assert (await find_engine(None)).origin is Origin.BUILT
    installed(path, on=frozenset({"avx10"}))
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "nowhere")  # no Linux
    assert (await find_engine(None)).origin is Origin.BUILT


async def test_a_file_that_cannot_be_run_is_refused(tmp_path: Path) -> None:
    path = llama_server(tmp_path / "engine")
    path.chmod(0o644)
    with pytest.raises(EngineError, match="cannot be run: Permission denied"):
        await find_engine(path)


async def test_an_engine_that_hangs_is_ended_and_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "PROBE_TIMEOUT_S", 0.1)
    with pytest.raises(EngineError, match=r"--version gave no answer in 0\.1 s"):
        await find_engine(script(tmp_path / "hangs", "while :; do :; done"))


async def test_the_environment_is_cleaned_for_the_probe_and_for_what_comes_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMA_ARG_MODEL", "other.gguf")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    path = llama_server(tmp_path / "engine")
    path.write_text(path.read_text().replace("#!/bin/sh", '#!/bin/sh\n[ -z "$LLAMA_ARG_MODEL" ] || exit 1'))
    found = await find_engine(path)
    assert found.env["CUDA_VISIBLE_DEVICES"] == "1"
    assert "LLAMA_ARG_MODEL" not in found.env


def test_flags_are_read_in_every_spelling_but_not_out_of_descriptions() -> None:
    text = """\
----- common params -----

-kvu,  --kv-unified, -no-kvu, --no-kv-unified
                                        use --one buffer (default:
                                        --enabled)
-b,    --batch-size N                   logical --maximum batch size (default: 2048)
-sm,   --split-mode {none,layer,row,tensor}
                                        - none: use one GPU only
  --embedding           as llama-server's --embeddings
"""
    kv = {"-kvu", "--kv-unified", "-no-kvu", "--no-kv-unified"}
    assert parse_flags(text) == kv | {"-b", "--batch-size", "-sm", "--split-mode", "--embedding"}


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("version: 6789 (abc1234)\nbuilt with GNU 12.2.0 for x86_64\n", "6789 (abc1234)"),
        ("ggml_cuda_init: found 1 CUDA device\nversion: 0.5.0-dev (build 1) \n", "0.5.0-dev (build 1)"),
        ("nginx version: nginx/1.22\n", None),
        ("", None),
    ],
)
def test_the_version_is_found_among_what_a_driver_prints(text: str, version: str | None) -> None:
    assert parse_version(text) == version
