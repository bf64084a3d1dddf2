"""A systemd of the test's own, in namespaces and on a copy of a system that is thrown away: see booted.sh."""

import asyncio
import os
import shutil
import sys
import sysconfig
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from launcher.processes.child import last_lines, running

BOOT = Path(__file__).with_name("booted.sh")
SOURCE = Path(__file__).parents[3]
TOOLS = ("unshare", "nsenter", "setpriv", "pivot_root", "ip", "systemctl")
BOOT_TIMEOUT_S = 20.0
COMMAND_TIMEOUT_S = 60.0
HARD_LIMIT_S = 110  # below the time that pytest gives a test
PYTHON = "/opt/trillama/.venv/bin/python"
# ldconfig: a shared libpython may know itself by a path below /root, which the service cannot see.
INSTALL = f"""
mkdir -p /etc/trillama
cd /opt/trillama
$PWD/python/bin/python{sys.version_info.major}.{sys.version_info.minor} -m venv --without-pip .venv
printf '/opt/trillama/src\\n/opt/trillama/site\\n' > "$(echo .venv/lib/python3.*/site-packages)/trillama.pth"
echo /opt/trillama/python/lib > /etc/ld.so.conf.d/00-python.conf && ldconfig
"""


@dataclass(frozen=True, slots=True)
class Booted:
    """A running systemd; `pid` is its process as seen from here. A command in it may take `timeout_s`."""

    pid: int
    timeout_s: float = COMMAND_TIMEOUT_S

    async def run(self, *command: str) -> tuple[int, str]:
        """A command as root inside: its exit code and what it printed."""
        process = await asyncio.create_subprocess_exec(
            *("nsenter", "--target", str(self.pid), "--all", "env", "-i", "PATH=/usr/sbin:/usr/bin", *command),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(self.timeout_s):
            printed, _ = await process.communicate()
        return process.returncode or 0, printed.decode()

    async def until(self, *command: str, code: int = 0, text: str = "") -> str:
        """What the command prints, once it exits with `code` and prints `text`."""
        got: tuple[int, str] = (-1, "")
        try:
            async with asyncio.timeout(self.timeout_s):
                while got[0] != code or text not in got[1]:
                    got = await self.run(*command)
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(f"{command}: {got}") from None
        return got[1]


@asynccontextmanager
async def booted(folder: Path, data: Path) -> AsyncIterator[Booted]:
    """systemd on a copy of /, with this checkout in /opt/trillama/src, a venv beside it, `data` in /opt/trillama/data.

    Skips the test where this machine does not let it boot.
    """
    places = {"src": SOURCE, "site": Path(sysconfig.get_path("purelib")), "python": Path(sys.base_prefix), "data": data}
    mounts = {f"/opt/trillama/{name}": source for name, source in places.items()}
    async with booted_system(folder, Path("/"), mounts) as inside:
        code, printed = await inside.run("sh", "-c", INSTALL)
        assert code == 0, printed
        yield inside


@asynccontextmanager
async def booted_system(
    folder: Path,
    system: Path,
    mounts: Mapping[str, Path],
    *,
    limit_s: float = HARD_LIMIT_S,
    command_s: float = COMMAND_TIMEOUT_S,
) -> AsyncIterator[Booted]:
    """systemd on a copy of the system in that folder, each source mounted at its target.

    It is ended after `limit_s`, a command in it after `command_s`.

    Skips the test where this machine does not let it boot.
    """
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if os.geteuid() != 0 or missing or not (system / "lib/systemd/systemd").exists():
        pytest.skip(f"booting a systemd needs root, systemd and {', '.join(missing) or 'its tools'}")
    base, log = folder / "container", folder / "container.log"
    base.mkdir()
    argv = (
        *("timeout", "--kill-after=5", str(limit_s), "setpriv", "--pdeathsig=TERM"),  # it ends with us, in order
        *("unshare", "--mount", "--uts", "--ipc", "--net", "--propagation=private", "sh", str(BOOT)),
        *(str(base), str(system), *(f"{target}={source}" for target, source in mounts.items())),
    )
    async with running(argv, env=os.environ, grace_s=10, output=log) as outer:
        inside = Booted(await _init_of(outer, log), command_s)
        await inside.until("systemctl", "is-active", "multi-user.target")
        yield inside


async def _init_of(outer: asyncio.subprocess.Process, log: Path) -> int:
    """The booted systemd's process id."""
    with suppress(TimeoutError):
        async with asyncio.timeout(BOOT_TIMEOUT_S):
            while outer.returncode is None:
                for one in _below(outer.pid):
                    with suppress(psutil.Error):  # the script's own commands come and go
                        if one.cmdline()[:1] == ["/lib/systemd/systemd"]:
                            return int(one.pid)
                await asyncio.sleep(0.05)
    pytest.skip(f"this machine does not let a systemd boot in a container: {last_lines(log)}")


def _below(pid: int) -> list[psutil.Process]:
    try:
        found: list[psutil.Process] = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return found
