"""`trillama service` with a real systemd, its real sandbox and a real service: from install to nothing left."""

import asyncio
from pathlib import Path

import tomli_w

from launcher.processes.child import leashed
from tests.support.host.booted import PYTHON, Booted, booted
from tests.support.servers.stack import small_family

UNIT = Path(__file__).parents[3] / "configs" / "systemd" / "trillama.service"
TRILLAMA = (PYTHON, "-P", "-m", "launcher")
ASK = """
import json, sys, urllib.error, urllib.request
request = urllib.request.Request(
    "http://127.0.0.1:8080/v1/embeddings", json.dumps({"input": ["a"]}).encode(),
    {"Content-Type": "application/json", **({"Authorization": "Bearer " + sys.argv[1]} if len(sys.argv) > 1 else {})})
try:
    print("status", urllib.request.urlopen(request).status)
except urllib.error.HTTPError as error:
    print("status", error.code)
"""


async def ask(inside: Booted, status: int, *key: str) -> None:
    """Embed until that status is answered; no connection may be refused meanwhile."""
    printed = ""
    async with asyncio.timeout(30):
        while f"status {status}" not in printed:
            _, printed = await inside.run(PYTHON, "-c", ASK, *key)
            assert "Traceback" not in printed, printed


async def test_a_service_is_installed_runs_survives_a_kill_and_leaves(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o755)
    family, models = small_family(data)
    config = {
        "family": f"/opt/trillama/data/{family.relative_to(data)}",
        "max_input_tokens": 512,
        "models": {"files": {name: f"/opt/trillama/data/{path.relative_to(data)}" for name, path in models.items()}},
        "engine": {"gpu_layers": 0, "threads": 1},
    }
    (data / "host.toml").write_text(tomli_w.dumps(config), encoding="utf-8")
    async with booted(tmp_path, data) as inside:
        await installed(inside)
        await inside.until(*TRILLAMA, "service", "status", text="retrieval ready")
        await ask(inside, 401)
        await ask(inside, 200, "the-key")
        await a_leashed_child_runs_in_the_sandbox(inside)
        assert await inside.run("systemctl", "reload", "trillama") == (0, "")
        code, _ = await inside.run("systemctl", "kill", "--kill-whom=main", "--signal=KILL", "trillama")
        assert code == 0
        await ask(inside, 200, "the-key")
        await inside.until("systemctl", "show", "trillama", "--property=NRestarts,ActiveState", text="State=active")
        assert "NRestarts=1" in (await inside.run("systemctl", "show", "trillama", "--property=NRestarts"))[1]
        code, golden = await inside.run("ls", "/var/lib/trillama/golden")
        assert len(golden.split()) == len(models)
        await uninstalled(inside)


async def installed(inside: Booted) -> None:
    unit = "/etc/systemd/system/trillama.service"
    script = (
        f"cp /opt/trillama/data/host.toml /etc/trillama/; umask 77; echo the-key > /etc/trillama/api_keys; touch {unit}"
    )
    await inside.run("sh", "-c", script)
    code, printed = await inside.run(*TRILLAMA, "service", "install", "--socket")
    assert (code, "--force" in printed) == (1, True), printed
    code, printed = await inside.run(*TRILLAMA, "service", "install", "--socket", "--force")
    assert code == 0, printed


async def a_leashed_child_runs_in_the_sandbox(inside: Booted) -> None:
    """As Ray's actor starts a node, in the unit of a cluster's host."""
    lines = UNIT.read_text(encoding="utf-8").splitlines()
    confined = [f"--property={line}" for line in lines if line.startswith(("SystemCall", "NoNewPrivileges", "Capab"))]
    assert len(confined) >= 5
    command = (PYTHON, *leashed(("echo", "it runs"))[1:])
    code, printed = await inside.run("systemd-run", "--property=StandardOutput=file:/run/said", *confined, *command)
    assert code == 0, printed
    await inside.until("cat", "/run/said", text="it runs")


async def uninstalled(inside: Booted) -> None:
    code, printed = await inside.run(*TRILLAMA, "service", "uninstall")
    assert code == 0, printed
    code, printed = await inside.run(*TRILLAMA, "service", "status")
    assert (code, "not installed" in printed) == (3, True), printed
    _, left = await inside.run("sh", "-c", "ls /etc/systemd/system /etc/systemd/system/*.wants /etc/trillama; ps ax")
    assert "trillama.s" not in left
    assert "launcher" not in left
    assert "api_keys" in left
