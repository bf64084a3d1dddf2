"""`trillama models list`, `verify` and `remove`: real commands on a cache of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from launcher.hub.cache import quantization_in
from tests.launcher.models.test_sources import write_gguf
from tests.support.sources.place import BACKENDS, MIB, OUT_OF_REACH, WEIGHTS, Place


@given(st.text("ABCIQFKMSXL0123456789_", min_size=1), st.sampled_from(BACKENDS))
def test_a_quantisation_is_read_from_the_name_that_is_made_of_it(quantization: str, backend: str) -> None:
    pattern = WEIGHTS[backend]["file"]
    assert quantization_in(pattern, pattern.format(quantization=quantization)) == quantization
    assert quantization_in(pattern, "mmproj-" + pattern.format(quantization=quantization)) is None


def test_list_shows_what_the_repositories_really_have_and_what_is_here(place: Place, small: dict[str, bytes]) -> None:
    place.put("code", "Q9_NEW", small["code"])  # the family file does not know it
    place.hub.add(WEIGHTS["code"]["repo"], "README.md", b"not a model")
    before = json.loads(place.models("list", "--json").out)
    assert place.models("pull", "Q8_0", "--backend", "code").code == 0
    after = json.loads(place.models("list", "--json").out)
    text = place.models("list").out

    assert before["cache"] == str(place.home / "hub")
    assert {(row["use"], row["path"]) for row in before["local"]} == {("missing", None)}
    offers = {(one["backend"], one["quantization"]): one for one in before["remote"]}
    assert offers.keys() == {*((b, q) for b in BACKENDS for q in ("Q4_K_M", "Q8_0")), ("code", "Q9_NEW")}
    assert offers["retrieval", "Q8_0"]["bytes"] == len(small["retrieval"]) + 6
    assert not any(one["here"] for one in before["remote"])
    assert [(one["backend"], one["quantization"]) for one in after["remote"] if one["here"]] == [("code", "Q8_0")]
    assert ("code", "Q8_0", "not in use") in place.local()
    assert str(place.blob("code", "Q8_0").name) not in text  # a path as the cache names it, whole
    assert any(line.startswith("code") and line.endswith("code-Q8_0.gguf") for line in text.splitlines())


def test_list_without_a_hub_shows_what_is_here_and_one_line_that_says_why(place: Place, tmp_path: Path) -> None:
    assert place.models("pull", "--backend", "code").code == 0
    own = write_gguf(tmp_path / "own.gguf")
    place.configure(files={"retrieval": str(own)})

    done = place.models("list", HF_ENDPOINT=OUT_OF_REACH)
    assert done.code == 0
    assert [line.split()[0] for line in done.out.splitlines()[:3]] == list(BACKENDS)
    assert (done.err.count("\n"), "cannot be reached" in done.err) == (1, True)
    assert "only what is on this machine is listed" in done.err
    assert "--local" in done.err
    offline = place.models("list", HF_HUB_OFFLINE="1")
    assert offline.out.splitlines()[:3] == done.out.splitlines()[:3]
    assert (offline.err.count("\n"), "HF_HUB_OFFLINE is set" in offline.err) == (1, True)
    place.hub.gated = True
    assert "accept the licence" in place.models("list").err
    assert place.local() == [
        ("retrieval", None, "in use"),
        ("code", "Q4_K_M", "in use"),
        ("text-matching", "Q4_K_M", "missing"),
    ]


def test_verify_finds_a_flipped_byte_without_a_network_and_its_fix_works(place: Place, tmp_path: Path) -> None:
    own = write_gguf(tmp_path / "own.gguf")
    place.configure(files={"retrieval": str(own)})
    assert place.models("pull").code == 0
    asked = len(place.hub.requests)
    whole = place.models("verify")
    with place.blob("code", "Q4_K_M").open("r+b") as file:
        file.seek(-100, os.SEEK_END)
        (byte,) = file.read(1)
        file.seek(-100, os.SEEK_END)
        file.write(bytes([byte ^ 1]))
    damaged = place.models("verify")
    assert len(place.hub.requests) == asked

    assert whole.code == 0, whole.err
    assert [line.split()[0] for line in whole.out.splitlines()] == ["ok", "ok", "readable"]
    assert damaged.code == 66
    (line,) = [line for line in damaged.out.splitlines() if line.startswith("DAMAGED")]
    for step in line.split("fix it with: ")[1].split(" && "):
        assert place.run(*step.removeprefix("trillama ").split()).code == 0
    assert place.models("verify").code == 0
    own.write_bytes(own.read_bytes()[:-10])
    cut = place.models("verify")
    assert cut.code == 66
    assert "cut off" in cut.out


def test_a_file_whose_content_is_gone_is_reported(place: Place) -> None:
    nothing = place.models("verify")
    assert (nothing.code, "`trillama models pull` downloads them" in nothing.out) == (0, True)
    assert place.models("pull").code == 0
    place.blob("code", "Q4_K_M").unlink()
    listed, verified = place.models("list", "--local"), place.models("verify")
    assert (verified.code, verified.out.split()[0]) == (66, "DAMAGED")
    for words in (listed.err, verified.out):
        assert "text-code-Q4_K_M.gguf is gone" in words
    assert ("code", "Q4_K_M", "missing") in place.local()


def test_remove_asks_frees_and_leaves_the_rest(place: Place, small: dict[str, bytes]) -> None:
    assert place.models("pull", "Q8_0").code == 0
    assert place.models("pull").code == 0
    half = place.blob("code", "Q8_0").parent / ("0" * 64 + ".trillama.incomplete")
    half.write_bytes(bytes(2 * MIB))

    asked = place.models("remove", "Q8_0")
    before = len(place.local())
    removed = place.models("remove", "Q8_0", "--yes")
    again = place.models("remove", "Q8_0", "--yes")

    assert (asked.code, before) == (1, 7)
    assert "add --yes" in asked.err
    assert removed.code == 0, removed.err
    freed = (2 * MIB + sum(map(len, small.values())) + 18) / MIB
    assert removed.out.splitlines()[-1] == f"{freed:.1f} MiB freed"
    assert place.local() == [(backend, "Q4_K_M", "in use") for backend in BACKENDS]
    assert (again.code, "no file of Q8_0 is here to remove; here is: Q4_K_M" in again.err) == (66, True)
    assert place.models("verify").code == 0


def test_remove_refuses_what_a_process_serves_and_leaves_a_running_download(place: Place) -> None:
    assert place.models("pull").code == 0
    path = place.blob("code", "Q4_K_M")
    half = path.parent / ("0" * 64 + ".trillama.incomplete")
    half.touch()
    hold = "import fcntl, sys; f = open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True); input()"
    argv = (sys.executable, "-c", hold, str(half), "--model", str(path))
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout
        assert server.stdout.readline() == b"held\n"
        served = place.models("remove", "--yes")
        other = place.models("remove", "--backend", "retrieval", "--yes")
        alone = place.models("remove", "Q8_0", "--backend", "code", "--yes")
        server.communicate(b"\n")

    assert served.code == 66
    assert f"is served by process {server.pid}: stop it first" in served.err
    assert (other.code, alone.code) == (0, 0)
    assert "its download runs in another process" in alone.out
    assert (path.exists(), half.exists()) == (True, True)


def test_the_demo_has_nothing_to_manage(place: Place) -> None:
    place.config.write_text("demo = true\n", encoding="utf-8")
    done = place.models("list")
    assert (done.code, "made when needed" in done.err) == (78, True)
