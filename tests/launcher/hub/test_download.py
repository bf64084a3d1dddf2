"""How a file comes from a hub: whole, resumed, from the cache, or not at all with the reason and the next step."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.support.sources.hub import TOKEN, Hub, running_hub

REPO, FILE = "owner/models", "model-Q4_K_M.gguf"
MIB = 2**20
# The client hands its bytes on in pieces of 10 MiB: less than that is lost with the connection.
CONTENT = np.random.default_rng(0).bytes(25 * MIB)

FETCH = f"""
import asyncio, sys
from launcher.errors import ModelError
from launcher.models.sources import ModelFile, locate
from launcher.settings.family import HubFile
file = ModelFile(backend="retrieval", origin=HubFile("{REPO}", "{FILE}"))
try:
    print("path", asyncio.run(locate(file, report=lambda *at: print("report", *at, flush=True))))
except ModelError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
except KeyboardInterrupt:
    sys.exit("stopped")
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a fetch in a process of its own ended: the path it gave, or its last words."""

    path: Path | None
    code: int
    error: str
    reports: list[tuple[str, int, int]]


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub() as hub:
        hub.add(REPO, FILE, CONTENT)
        yield hub


def fetch(env: Mapping[str, str]) -> Outcome:
    argv = (sys.executable, "-c", FETCH)
    done = subprocess.run(argv, env=clean(env), capture_output=True, text=True, timeout=60, check=False)
    lines = [line.split() for line in done.stdout.splitlines()]
    return Outcome(
        path=next((Path(words[1]) for words in lines if words[0] == "path"), None),
        code=done.returncode,
        error=done.stderr,
        reports=[(words[1], int(words[2]), int(words[3])) for words in lines if words[0] == "report"],
    )


def clean(env: Mapping[str, str]) -> dict[str, str]:
    return {**{name: value for name, value in os.environ.items() if not name.startswith("HF_")}, **env}


def partial_file(home: Path) -> Path:
    blobs = home / "hub" / f"models--{REPO.replace('/', '--')}" / "blobs"
    return blobs / f"{hashlib.sha256(CONTENT).hexdigest()}.trillama.incomplete"


def test_a_file_is_downloaded_with_progress_and_found_without_network_from_then_on(hub: Hub, tmp_path: Path) -> None:
    first = fetch(hub.env(tmp_path))
    asked = len(hub.requests)
    second = fetch({**hub.env(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9"})

    assert first.path is not None, first.error
    assert first.path.read_bytes() == CONTENT
    assert first.reports[-1] == ("retrieval", len(CONTENT), len(CONTENT))
    assert [done for _, done, _ in first.reports] == sorted(done for _, done, _ in first.reports)
    assert (second.path, second.reports, len(hub.requests)) == (first.path, [], asked)


def test_a_download_that_is_cut_continues_where_it_was(hub: Hub, tmp_path: Path) -> None:
    hub.cut_after = 15 * MIB

    outcome = fetch(hub.env(tmp_path))

    assert outcome.path is not None, outcome.error
    assert outcome.path.read_bytes() == CONTENT
    assert [request.range for request in hub.downloads()] == [None, f"bytes={10 * MIB}-"]


def test_a_download_that_is_reset_continues_where_it_was(hub: Hub, tmp_path: Path) -> None:
    hub.reset_after = 20 * MIB  # a reset takes what is still in the sockets with it, if there is anything

    outcome = fetch(hub.env(tmp_path))

    assert outcome.path is not None, outcome.error
    assert outcome.path.read_bytes() == CONTENT
    first, again = [request.range for request in hub.downloads()]
    assert first is None
    assert again in {f"bytes={10 * MIB}-", f"bytes={20 * MIB}-"}


def test_two_processes_at_once_download_a_file_once(hub: Hub, tmp_path: Path) -> None:
    with ThreadPoolExecutor() as pool:
        first, second = pool.map(fetch, [hub.env(tmp_path)] * 2)

    assert first.path is not None, first.error
    assert first.path == second.path
    assert len(hub.downloads()) == 1
    assert not partial_file(tmp_path).exists()


def test_ctrl_c_ends_a_stalled_download_at_once_and_the_next_start_resumes_it(hub: Hub, tmp_path: Path) -> None:
    hub.stall_after = 15 * MIB
    argv = (sys.executable, "-c", FETCH)
    with subprocess.Popen(argv, env=clean(hub.env(tmp_path)), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as first:
        assert first.stdout
        assert first.stderr
        assert first.stdout.readline() == f"report retrieval {10 * MIB} {len(CONTENT)}\n".encode()
        first.send_signal(signal.SIGINT)
        stopped = time.monotonic()
        assert first.stderr.read() == b"stopped\n"
        assert first.wait() == 1
        assert time.monotonic() - stopped < 9  # the client's own timeout is 10 s

    second = fetch(hub.env(tmp_path))

    assert second.path is not None, second.error
    assert second.path.read_bytes() == CONTENT
    assert hub.downloads()[-1].range == f"bytes={10 * MIB}-"


def test_a_damaged_download_is_refused_and_not_kept(hub: Hub, tmp_path: Path) -> None:
    hub.damaged = True
    damaged = fetch(hub.env(tmp_path))
    hub.damaged = False
    again = fetch(hub.env(tmp_path))

    assert "the download is damaged" in damaged.error
    assert again.path is not None
    assert again.path.read_bytes() == CONTENT
    assert hub.downloads()[-1].range is None


def test_offline_without_the_file_says_how_to_give_it_by_hand(hub: Hub, tmp_path: Path) -> None:
    outcome = fetch({**hub.env(tmp_path), "HF_HUB_OFFLINE": "1"})

    assert "HF_HUB_OFFLINE forbids to fetch it" in outcome.error
    assert "[models.files]" in outcome.error
    assert outcome.code == 66  # a service stays down: nothing but its user can help
    assert hub.requests == []


def test_a_hub_out_of_reach_says_how_to_give_the_file_by_hand(hub: Hub, tmp_path: Path) -> None:
    outcome = fetch({**hub.env(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9"})

    assert "http://127.0.0.1:9 cannot be reached" in outcome.error
    assert "[models.files]" in outcome.error
    assert outcome.code == 75  # a service tries again: at boot the network may come later


def test_a_hub_that_is_down_is_named_with_its_status(hub: Hub, tmp_path: Path) -> None:
    hub.status = 503
    outcome = fetch(hub.env(tmp_path))
    assert f"the hub answered HTTP 503 for {FILE}" in outcome.error
    assert outcome.code == 75


def test_a_file_the_repository_does_not_have_names_the_page_that_lists_them(hub: Hub, tmp_path: Path) -> None:
    hub.files = {f"{REPO}/other.gguf": b""}

    error = fetch(hub.env(tmp_path)).error

    assert error.startswith(f"{REPO} has no file {FILE}")
    assert f"{hub.url}/{REPO}/tree/main" in error


@pytest.mark.parametrize("token", [None, "hf_of_somebody_else"])
def test_a_gated_repository_names_its_licence_and_the_token(hub: Hub, tmp_path: Path, token: str | None) -> None:
    hub.gated = True

    error = fetch(hub.env(tmp_path, token=token)).error

    assert f"accept the licence at {hub.url}/{REPO}" in error
    assert "HF_TOKEN" in error


def test_a_gated_repository_is_read_with_a_token_that_may(hub: Hub, tmp_path: Path) -> None:
    hub.gated = True
    assert fetch(hub.env(tmp_path, token=TOKEN)).path is not None
    assert {request.token for request in hub.requests} == {TOKEN}


def test_a_repository_that_does_not_exist_is_named(hub: Hub, tmp_path: Path) -> None:
    hub.files = {"owner/another/model.gguf": b""}
    assert f"the hub does not let us read {REPO} (HTTP 401): check the name" in fetch(hub.env(tmp_path)).error


def test_a_file_larger_than_the_disk_is_refused_before_its_first_byte(hub: Hub, tmp_path: Path) -> None:
    hub.claimed_bytes = 2**60

    error = fetch(hub.env(tmp_path)).error

    assert f"the disk of {tmp_path / 'hub'} is full (No space left on device): make room" in error
    assert "1073741824.00 GiB are missing" in error
    assert hub.downloads() == []


def test_a_disk_that_fills_up_on_the_way_is_named(hub: Hub, tmp_path: Path) -> None:
    # The kernel's own ENOSPC: the half-way file is /dev/full.
    partial = partial_file(tmp_path)
    partial.parent.mkdir(parents=True)
    partial.symlink_to("/dev/full")

    error = fetch(hub.env(tmp_path)).error

    assert f"the disk of {tmp_path / 'hub'} is full (No space left on device): make room or set HF_HOME" in error


def test_a_cache_that_may_not_be_written_is_named(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "hub").write_text("a file where the folder should be")
    assert f"cannot be written to {tmp_path / 'hub'} (Not a directory): set HF_HOME" in fetch(hub.env(tmp_path)).error
