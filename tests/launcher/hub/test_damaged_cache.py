"""A cache as power cuts, odd file systems and other programs leave it: repaired by what a user does anyway."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.servers.trillama import Done, clean, commands, trillama
from tests.support.sources.place import MIB, OUT_OF_REACH, WEIGHTS, Place

PULL = ("pull", "--backend", "code")
UNSHARE = shutil.which("unshare")
# What `serve` does for each model before it starts it.
WHOLE = """
import asyncio, sys
from pathlib import Path
from launcher.settings.config import load
from launcher.settings.models import ModelSettings
from launcher.errors import LauncherError
from launcher.models.sources import locate_intact, model_files
settings = load(Path(sys.argv[1]))
(file,) = [one for one in model_files(settings.family, settings.host.models) if one.backend == "code"]
try:
    print(asyncio.run(locate_intact(file, report=lambda *_: None)))
except LauncherError as error:
    sys.exit(str(error))
"""


def serve(place: Place, **env: str) -> Done:
    argv = (sys.executable, "-c", WHOLE, str(place.config))
    done = subprocess.run(
        argv, env=clean({**place.env, **env}), capture_output=True, text=True, timeout=60, check=False
    )
    return Done(done.returncode, done.stdout, done.stderr)


def used(place: Place) -> int:
    """The bytes of all files in the cache, each once."""
    files = {path.resolve() for path in (place.home / "hub").rglob("*") if path.is_file()}
    return sum(path.stat().st_size for path in files)


@pytest.mark.parametrize("by", ["pull", "serve"])
def test_a_truncated_file_is_continued(place: Place, big: bytes, by: str) -> None:
    place.put("code", "Q4_K_M", big)
    assert place.models(*PULL).code == 0
    blob = place.blob("code", "Q4_K_M")
    os.truncate(blob, 11 * MIB)
    done = place.models(*PULL) if by == "pull" else serve(place)
    assert done.code == 0, done.err
    assert blob.read_bytes() == big
    assert place.hub.downloads()[-1].range == f"bytes={11 * MIB}-"


def test_a_file_of_another_length_or_none_is_fetched_again(place: Place, small: dict[str, bytes]) -> None:
    assert place.models(*PULL).code == 0
    blob = place.blob("code", "Q4_K_M")
    for spoilt in (bytes(len(small["code"])), b"", small["code"][:40], b"x" + small["code"][1:]):
        blob.write_bytes(spoilt)
        done = place.models(*PULL)
        assert done.code == 0, done.err
        assert blob.read_bytes() == small["code"]
    assert place.halves() == []


def test_corruption_that_keeps_the_length_is_found_by_a_pull(place: Place, small: dict[str, bytes]) -> None:
    assert place.models(*PULL).code == 0
    blob = place.blob("code", "Q4_K_M")
    with blob.open("r+b") as file:
        file.seek(-9, os.SEEK_END)
        file.write(b"?")
    done = place.models(*PULL)
    assert (done.code, blob.read_bytes()) == (0, small["code"])
    assert "is damaged: fetching it again" in done.err


def test_a_damaged_partial_download_costs_one_download_and_no_retry(place: Place, small: dict[str, bytes]) -> None:
    assert place.models(*PULL).code == 0
    blob = place.blob("code", "Q4_K_M")
    blob.write_bytes(b"?" * 100)
    assert place.models(*PULL).code == 0
    assert blob.read_bytes() == small["code"]
    assert [one.range for one in place.hub.downloads()][1:] == ["bytes=100-", None]


def test_without_a_network_the_damage_is_named_and_nothing_is_lost(place: Place, small: dict[str, bytes]) -> None:
    assert place.models(*PULL).code == 0
    blob = place.blob("code", "Q4_K_M")
    os.truncate(blob, 100)
    away, offline = place.models(*PULL, HF_ENDPOINT=OUT_OF_REACH), place.models(*PULL, HF_HUB_OFFLINE="1")
    assert (away.code, offline.code) == (75, 66)
    for done in (away, offline):
        assert "is damaged, and cannot be fetched again: " in done.err
    assert blob.stat().st_size == 100


def test_a_cache_without_links_stores_a_model_once_and_frees_it(place: Place, small: dict[str, bytes]) -> None:
    with commands({**place.env, "HF_HUB_DISABLE_SYMLINKS": "1"}) as run:

        def models(*arguments: str) -> Done:
            return run("models", *arguments, "--config", str(place.config))

        first = models(*PULL)
        assert first.code == 0, first.err
        path, size, asked = Path(first.out.split(": ")[1].strip()), used(place), len(place.hub.requests)
        assert (path.is_file(), path.is_symlink()) == (True, False)
        assert size < len(small["code"]) + 200
        assert (models(*PULL).out, len(place.hub.requests)) == (first.out, asked)
        assert models("verify").out.startswith("readable")

        os.truncate(path, 100)
        assert models(*PULL).code == 0
        assert (path.read_bytes(), used(place)) == (small["code"], size)
        removed = models("remove", "--backend", "code", "--yes")
        assert removed.code == 0, removed.err
        assert used(place) < 200


def test_a_dangling_reference_is_reported_and_repaired_by_a_pull(place: Place) -> None:
    assert place.models(*PULL).code == 0
    reference = next((place.home / "hub").glob(f"*{WEIGHTS['code']['repo'].split('/')[1]}/refs/main"))
    for damage in (b"0" * 40, b"\xff\xfe\x00", b""):
        reference.write_bytes(damage)
        listed = place.models("list", "--local")
        assert (listed.code, "Traceback" in listed.err) in ((0, False), (66, False))
        done = place.models(*PULL)
        assert done.code == 0, done.err
        assert ("code", "Q4_K_M", "in use") in place.local()


def test_a_disk_that_is_read_only_is_named(place: Place) -> None:
    if not UNSHARE or subprocess.run((UNSHARE, "-m", "true"), check=False, capture_output=True).returncode:
        pytest.skip("a disk of its own needs `unshare -m`, which this machine does not allow")
    place.home.mkdir()
    script = f'mount -t tmpfs -o size=40m,ro none {place.home} && exec "$@"'
    before = (UNSHARE, "-m", "sh", "-c", script, "sh")
    done = trillama("models", *PULL, "--config", str(place.config), env=place.env, before=before)
    assert done.code == 75, done.err
    assert f"cannot be written to {place.home}/hub (Read-only file system): set HF_HOME" in done.err
    assert "are missing, 40.0 MiB are free" in done.err
