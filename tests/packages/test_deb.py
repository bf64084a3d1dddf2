"""The .deb in a booted Debian 12 and 13: installed, started, upgraded, removed and purged."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.packages.debian import KEY, RELEASES, deb, debian, ready, shell, start
from tests.support.host.booted import Booted

ASK = (
    "curl --silent --fail http://127.0.0.1:8080/v1/embeddings --header 'Content-Type: application/json' "
    f"""--header 'Authorization: Bearer {KEY}' --data '{{"input": ["overheating lightsaber"]}}'"""
)
KEPT = "find /var/cache/trillama /var/lib/trillama -type f -printf '%p %s %T@\\n' | grep -E 'gguf|golden' | sort"


@pytest.mark.timeout(900)
@pytest.mark.parametrize("suite", RELEASES)
async def test_the_package_is_installed_started_upgraded_removed_and_purged(tmp_path: Path, suite: str) -> None:
    package = deb(suite)
    async with debian(suite, tmp_path) as inside:
        await installed(inside, package.name)
        await start(inside)
        await served(inside)
        kept = await shell(inside, KEPT)
        assert "gguf" in kept
        assert "golden" in kept
        await upgraded(inside, newer(package, tmp_path))
        await served(inside)
        assert await shell(inside, KEPT) == kept
        await removed(inside)
        assert await shell(inside, KEPT) == kept
        await purged(inside)
        assert await shell(inside, KEPT) == kept


async def installed(inside: Booted, package: str) -> None:
    printed = await shell(inside, f"apt-get install --yes /mnt/dist/{package}")
    assert "systemctl enable --now trillama" in printed
    assert await inside.run("systemctl", "is-active", "trillama") == (3, "inactive\n")  # nothing was started
    assert await inside.run("systemctl", "is-enabled", "trillama") == (1, "disabled\n")
    assert await shell(inside, "stat -c '%a %U:%G' /etc/trillama/host.toml") == "640 root:trillama\n"
    assert await shell(inside, "dpkg --verify trillama") == ""
    printed = await shell(inside, "cd /; trillama --version; trillama doctor --config /etc/trillama/host.toml || true")
    assert f"trillama {package.split('_')[1].split('-', maxsplit=1)[0]}\n" in printed
    assert "installed: /usr/lib/systemd/system/trillama.service" in printed
    await shell(inside, "/opt/trillama/venv/bin/python -c 'import opentelemetry.sdk, pypdfium2'")


async def served(inside: Booted) -> None:
    """The service answers, as its own user, within its sandbox, and its commands find it."""
    assert len(json.loads(await shell(inside, ASK))["data"][0]["embedding"]) == 2048
    assert "trillama" in await shell(inside, "ps -o user= -p $(systemctl show --value -p MainPID trillama)")
    status = await shell(inside, "cd /; runuser -u trillama -- trillama status; trillama service status")
    assert "retrieval" in status
    assert "active (running)" in status
    assert await shell(inside, "systemctl show --value -p NRestarts trillama") == "0\n"
    assert await shell(inside, "find /opt/trillama -user trillama") == ""
    # A command of the service's user uses the service's folders.
    assert "/var/cache/trillama" in await shell(
        inside, "cd /; runuser -u trillama -- trillama doctor --config /etc/trillama/host.toml"
    )


def newer(package: Path, folder: Path) -> str:
    """The same package as the next version, with another default configuration; its path inside."""
    tree, target = folder / "newer", folder / "data" / "newer.deb"
    subprocess.run(("dpkg-deb", "--raw-extract", str(package), str(tree)), check=True, timeout=300)
    control, settings = tree / "DEBIAN" / "control", tree / "etc" / "trillama" / "host.toml"
    control.write_text(control.read_text("utf-8").replace("-1~deb", "-2~deb"), encoding="utf-8")
    settings.write_text(f"{settings.read_text('utf-8')}\n# another default\n", encoding="utf-8")
    subprocess.run(
        ("dpkg-deb", "--root-owner-group", "-Znone", "--build", str(tree), str(target)), check=True, timeout=300
    )
    return "/mnt/data/newer.deb"


async def upgraded(inside: Booted, package: str) -> None:
    """It runs the new version at once, with the settings that were there."""
    settings = await shell(inside, "cat /etc/trillama/host.toml; stat -c '%a %U:%G' /etc/trillama/host.toml")
    pid = await shell(inside, "systemctl show --value -p MainPID trillama")
    await shell(inside, f"apt-get install --yes -o Dpkg::Options::=--force-confdef {package}")
    await ready(inside)
    assert await shell(inside, "systemctl show --value -p MainPID trillama") != pid
    assert "-2~deb" in await shell(inside, "dpkg-query --show trillama")
    now = await shell(inside, "cat /etc/trillama/host.toml; stat -c '%a %U:%G' /etc/trillama/host.toml")
    assert now == settings


async def removed(inside: Booted) -> None:
    await shell(inside, "apt-get remove --yes trillama")
    assert "demo = true" in await shell(inside, "cat /etc/trillama/host.toml")
    left = await shell(inside, "ls -d /opt/* /usr/bin/trill* /usr/lib/systemd/system/tril* 2> /dev/null || true; ps ax")
    assert "trillama" not in left
    assert "trillama" not in await shell(inside, "ls /etc/systemd/system/*.wants 2> /dev/null || true")


async def purged(inside: Booted) -> None:
    printed = await shell(inside, "apt-get purge --yes trillama")
    assert "kept: /var/cache/trillama" in printed
    assert "kept: /var/lib/trillama" in printed
    left = await shell(inside, "find / -xdev -path /proc -prune -o -name '*trillama*' -print")
    assert set(left.split()) == {"/var/cache/trillama", "/var/lib/trillama"}
