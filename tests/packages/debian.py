"""A booted Debian of the tests' own, and what the tests of the .deb ask of it."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import tomli_w

from tests.packages.conftest import ROOT
from tests.support.host.booted import Booted, booted_system

RELEASES = {"bookworm": 12, "trixie": 13}
KEY = "a-key-of-the-tests-own"
MAKE_ROOT = ROOT / "packaging" / "debian" / "root.sh"
# What a server has, what the package depends on (the booted one has no network), and the proxies of docs/security.md.
PACKAGES = "systemd systemd-sysv python3 libgomp1 iproute2 procps curl openssl nginx caddy".split()
ROOT_TIMEOUT_S = 500
LIMIT_S = 800.0  # of the booted system; a minute or two where nothing else runs
COMMAND_S = 300.0  # of a command in it: apt unpacks 7000 files
READY_TIMEOUT_S = 120.0


@asynccontextmanager
async def debian(suite: str, folder: Path) -> AsyncIterator[Booted]:
    """That Debian without a network, with dist/ at /mnt/dist and a configuration for made-up models in /mnt/data."""
    data = folder / "data"
    data.mkdir(mode=0o755)
    config = {"demo": True, "max_input_tokens": 4096, "engine": {"gpu_layers": 0}, "proxy": {"api_keys": [KEY]}}
    (data / "host.toml").write_text(tomli_w.dumps(config), encoding="utf-8")
    mounts = {"/mnt/dist": deb(suite).parent, "/mnt/data": data}
    async with booted_system(folder, system(suite), mounts, limit_s=LIMIT_S, command_s=COMMAND_S) as inside:
        yield inside


def deb(suite: str) -> Path:
    """The package for that release; skips the test where `make release` has made none."""
    if not (found := list((ROOT / "dist").glob(f"trillama_*~deb{RELEASES[suite]}u*.deb"))):
        pytest.skip(f"there is no .deb for {suite}: make test-packages, as root")
    (package,) = found
    return package


def system(suite: str) -> Path:
    """The folder with that Debian, made the first time."""
    folder = ROOT / ".roots" / f"test-{suite}"
    subprocess.run(("sh", str(MAKE_ROOT), suite, str(folder), *PACKAGES), check=True, timeout=ROOT_TIMEOUT_S)
    return folder


async def shell(inside: Booted, script: str) -> str:
    """What a shell script prints that must succeed."""
    code, printed = await inside.run("sh", "-ec", f"export LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive\n{script}")
    assert code == 0, f"{script}:\n{printed}"
    return printed


async def start(inside: Booted) -> None:
    """Configure and start the service, and wait until its models serve."""
    await shell(inside, "cat /mnt/data/host.toml > /etc/trillama/host.toml; systemctl enable --now --no-block trillama")
    await ready(inside)


async def ready(inside: Booted) -> None:
    """Wait until every model answers."""
    printed = ""
    async with asyncio.timeout(READY_TIMEOUT_S):
        while not printed.endswith(" 200"):
            argv = ("curl", "--silent", "--write-out", " %{http_code}", "http://127.0.0.1:8080/ready")
            _, printed = await inside.run(*argv)
            await asyncio.sleep(0.2)
