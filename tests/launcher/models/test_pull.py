"""`trillama models pull`: real commands against a hub on loopback, with faults on the way."""

import os
import resource
import shutil
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from tests.support.servers.trillama import clean, command, trillama
from tests.support.sources.place import BACKENDS, MIB, OUT_OF_REACH, Place


def test_pull_fetches_what_the_configuration_wants_says_the_licence_once_and_nothing_twice(place: Place) -> None:
    first, asked = place.models("pull"), len(place.hub.requests)
    second = place.models("pull")

    assert first.code == 0, first.err
    assert first.err.count("CC BY-NC 4.0") == 1
    assert [line.split(":")[0] for line in first.out.splitlines()] == list(BACKENDS)
    assert (len(place.hub.downloads()), len(place.hub.requests)) == (3, asked)
    assert (second.code, second.out) == (0, first.out)
    assert "licence" not in second.err


def test_two_pulls_at_once_fetch_each_file_once(place: Place) -> None:
    with ThreadPoolExecutor() as pool:
        first, second = pool.map(
            lambda _: trillama("models", "pull", "--config", str(place.config), env=place.env), "12"
        )

    assert (first.code, second.code) == (0, 0), first.err + second.err
    assert first.out == second.out
    assert len(place.hub.downloads()) == 3
    assert place.halves() == []


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_a_pull_that_is_ended_half_way_is_resumed(place: Place, big: bytes, signum: signal.Signals, code: int) -> None:
    place.put("code", "Q4_K_M", big)
    place.hub.stall_after = 15 * MIB
    argv = command("models", "pull", "--backend", "code", "--config", str(place.config))
    with subprocess.Popen(argv, env=clean(place.env), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as first:
        assert first.stderr
        while b"downloading" not in first.stderr.readline():
            assert first.poll() is None
        while not any(half.stat().st_size >= 10 * MIB for half in place.halves()):
            assert first.poll() is None
        first.send_signal(signum)
        assert first.wait(20) == code
    assert ("code", None, "half") in place.local()

    again = place.models("pull", "--backend", "code")

    assert again.code == 0, again.err
    assert "15.0 MiB to download" in again.err  # of 25
    assert place.hub.downloads()[-1].range == f"bytes={10 * MIB}-"
    assert place.blob("code", "Q4_K_M").read_bytes() == big


def test_a_damaged_download_is_refused(place: Place) -> None:
    place.hub.damaged = True
    done = place.models("pull", "--backend", "code")
    assert done.code == 66
    assert "the download is damaged" in done.err
    assert ("code", "Q4_K_M", "missing") in place.local()


def test_a_waiting_pull_continues_when_the_partial_file_it_waits_for_is_deleted(place: Place, big: bytes) -> None:
    """The first finds its download damaged and removes it; what the second has open is then no file any more."""
    place.put("code", "Q4_K_M", big)
    place.hub.damaged = True
    arguments = ("models", "pull", "--backend", "code", "--config", str(place.config))
    with ThreadPoolExecutor() as pool:
        done = list(pool.map(lambda _: trillama(*arguments, env=place.env), "12"))
    assert [one.code for one in done] == [66, 66]
    assert all("the download is damaged" in one.err for one in done), done
    assert place.halves() == []


def test_a_quantisation_that_is_not_there_is_answered_with_those_that_are(place: Place) -> None:
    online, offline = place.models("pull", "Q9_X"), place.models("pull", "Q9_X", HF_HUB_OFFLINE="1")

    assert (online.code, offline.code) == (66, 66)
    assert 'text-retrieval-GGUF has no "Q9_X"; there are Q8_0, Q4_K_M' in online.err
    assert '"Q9_X": jina-embeddings-v4 is offered as F16, Q8_0' in offline.err
    assert "no such model; there are retrieval, code" in place.models("pull", "--backend", "retreival").err


def test_a_size_is_said_only_if_all_sizes_are_known(place: Place) -> None:
    done = place.models("pull", "--images", HF_ENDPOINT=OUT_OF_REACH)
    assert done.code == 75, done.err
    assert "to download" not in done.err  # the encoder's size is in the family's file, the models' are not
    assert "licence of the models: CC BY-NC 4.0" in done.err


def test_a_disk_that_cannot_take_all_is_refused_before_the_first_byte(place: Place, big: bytes) -> None:
    unshare = shutil.which("unshare")
    if not unshare or subprocess.run((unshare, "-m", "true"), check=False, capture_output=True).returncode:
        pytest.skip("a small disk needs `unshare -m`, which this machine does not allow")
    for backend in BACKENDS:
        place.put(backend, "Q4_K_M", big + backend.encode())
    place.home.mkdir()
    script = f"mount -t tmpfs -o size=60m none {place.home} && exec " + '"$@"'
    before = (unshare, "-m", "sh", "-c", script, "sh")

    done = trillama("models", "pull", "--config", str(place.config), env=place.env, before=before)

    assert done.code == 75
    assert f"3 files of Q4_K_M need 75.0 MiB, the disk of {place.home}/hub has 60.0 MiB free: make room" in done.err
    assert place.hub.downloads() == []


def test_nobody_else_may_change_a_model_whatever_the_umask(place: Place) -> None:
    arguments = ("models", "pull", "--backend", "code", "--config", str(place.config))
    assert trillama(*arguments, env=place.env, preexec=lambda: os.umask(0)).code == 0
    files = [path for path in place.home.rglob("*") if not path.is_symlink()]
    assert files
    assert [path for path in files if path.stat().st_mode & 0o002] == []


def test_a_file_over_the_limit_of_the_process_is_named_and_its_half_is_kept(place: Place, big: bytes) -> None:
    place.put("code", "Q4_K_M", big)
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (12 * MIB, 12 * MIB))
    arguments = ("models", "pull", "--backend", "code", "--config", str(place.config))

    done = trillama(*arguments, env=place.env, preexec=limit)

    assert done.code == 75
    assert "too large for the file system" in done.err
    assert "ulimit -f" in done.err
    assert [half.stat().st_size for half in place.halves()] == [12 * MIB]
    assert place.run(*arguments).code == 0
    assert place.blob("code", "Q4_K_M").read_bytes() == big
