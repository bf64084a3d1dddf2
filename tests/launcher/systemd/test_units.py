"""`trillama service`: the units as systemd judges them, who could read what, and what is said where it cannot work."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.errors import ConfigError
from launcher.settings.config import HostConfig
from launcher.systemd.systemctl import foreign, ours, write_units
from launcher.systemd.units import Installation, address, obstacle, systemd_quoted, unit_folder, units

SYSTEM = Installation(user=False, python=Path(sys.executable), config=Path("/etc/trillama/host.toml"))
WITH_SOCKET = Installation(user=False, python=Path(sys.executable), listen="127.0.0.1:8080", credentials=("api_keys",))
USER = Installation(user=True, python=Path(sys.executable), listen="[::1]:8080", credentials=("api_keys",))


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("no systemd-analyze on this machine")
    env = {**os.environ, "SYSTEMD_COLORS": "0", "XDG_RUNTIME_DIR": "/tmp"}  # noqa: S108 # --user wants one, uses none
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False, env=env)


@pytest.mark.parametrize("installation", [SYSTEM, WITH_SOCKET, USER], ids=["system", "with socket", "user"])
def test_systemd_finds_no_fault_with_the_units(installation: Installation, tmp_path: Path) -> None:
    write_units(tmp_path, units(installation))
    scope = "--user" if installation.user else "--system"
    verified = analyze("verify", scope, *(str(tmp_path / name) for name in installation.names))
    assert (verified.returncode, verified.stderr) == (0, "")


@pytest.mark.parametrize("installation", [SYSTEM, WITH_SOCKET], ids=["system", "with socket"])
def test_the_system_service_can_do_little(installation: Installation, tmp_path: Path) -> None:
    write_units(tmp_path, units(installation))
    secured = analyze("security", "--offline=true", "--threshold=20", str(tmp_path / "trillama.service"))
    assert secured.returncode == 0, secured.stdout[-300:]


def test_a_users_unit_asks_for_nothing_that_only_root_can_give() -> None:
    text = units(USER)["trillama.service"]
    assert "WantedBy=default.target" in text
    assert "LoadCredential=api_keys:%E/trillama/api_keys" in text.splitlines()
    for name in ("DynamicUser", "ProtectSystem", "CapabilityBoundingSet", "DeviceAllow", "HF_HOME", "ExecStartPre"):
        assert name not in text
    for line in ("Sockets=trillama.socket", "Requires=trillama.socket", "SystemCallErrorNumber=EPERM"):
        assert line in text.splitlines()


def test_a_unit_names_its_interpreter_and_configuration() -> None:
    installation = Installation(user=True, python=Path("/opt/my env/python"), config=Path("/etc/100%.toml"))
    text = units(installation)["trillama.service"]
    assert 'ExecStart="/opt/my env/python" -P -m launcher serve --config /etc/100%%.toml\n' in text


@given(st.text(st.characters(exclude_categories=["C", "Z"]) | st.just(" "), min_size=1))
def test_a_quoted_word_is_one_word_again(word: str) -> None:
    """Undone as systemd.service(5) says; its quotes and backslashes are the shell's, as far as we use them."""
    (split,) = shlex.split(systemd_quoted(word).replace("$$", "\0"))
    assert split.replace("\0", "$").replace("%%", "%") == word


@pytest.mark.parametrize("word", ["a\nExecStart=/bin/evil", "a\x00", "tab\t"])
def test_a_word_that_would_break_the_unit_is_refused(word: str) -> None:
    with pytest.raises(ConfigError, match="control characters"):
        systemd_quoted(word)


@pytest.mark.parametrize(
    ("host", "port", "listen"),
    [("127.0.0.1", 1, "127.0.0.1:1"), ("::", 80, "[::]:80"), ("localhost", 9, "127.0.0.1:9")],
)
def test_the_socket_unit_listens_where_the_configuration_says(host: str, port: int, listen: str) -> None:
    assert address(HostConfig(host=host, port=port)) == listen


def test_a_socket_unit_needs_a_port() -> None:
    with pytest.raises(ConfigError, match="port = 0"):
        address(HostConfig(port=0))


def test_what_the_services_user_cannot_read_is_found(tmp_path: Path) -> None:
    reason = obstacle(tmp_path)
    assert reason is not None
    assert "hidden from it" in reason
    assert obstacle(Path("/etc/passwd")) is None
    assert obstacle(Path("/etc/shadow")) == "/etc/shadow may not be read by others (mode 640)"
    assert obstacle(Path("/etc/no-such")) == "/etc/no-such does not exist"


def test_units_of_others_are_told_apart_from_ours(tmp_path: Path) -> None:
    write_units(tmp_path, units(SYSTEM))
    (tmp_path / "trillama.socket").write_text("[Socket]\nListenStream=1\n", encoding="utf-8")
    assert (ours(tmp_path), foreign(tmp_path)) == (("trillama.service",), ("trillama.socket",))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["trillama.service", "trillama.socket"]


def test_units_go_where_systemd_looks() -> None:
    assert unit_folder(False) == Path("/etc/systemd/system")
    assert unit_folder(True, {"XDG_CONFIG_HOME": "/c"}) == Path("/c/systemd/user")


def trillama_service(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", "launcher", "service", *arguments)
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_dry_run_shows_units_and_commands_and_does_nothing(tmp_path: Path) -> None:
    config = tmp_path / "host.toml"
    config.write_text("port = 9000\n", encoding="utf-8")
    shown = trillama_service("install", "--user", "--socket", "--dry-run", "--config", str(config))
    assert shown.returncode == 0, shown.stderr
    assert f"{sys.executable} -P -m launcher serve --config {config}" in shown.stdout
    assert "ListenStream=127.0.0.1:9000" in shown.stdout
    assert "systemctl --user enable --now --no-block trillama.service trillama.socket" in shown.stdout


@pytest.mark.skipif(Path("/run/systemd/system").exists(), reason="systemd runs here")
def test_without_systemd_it_says_what_to_do() -> None:
    said = trillama_service("install", "--user")
    assert said.returncode == 1
    assert "systemd does not run here" in said.stderr


@pytest.mark.parametrize(("config", "message"), [("port = 80", "add --socket"), ("prot = 80", "prot")])
def test_what_would_not_start_is_not_installed(config: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "host.toml"
    file.write_text(config, encoding="utf-8")
    said = trillama_service("install", "--user", "--config", str(file))
    assert (said.returncode, message in said.stderr) == (78, True), said.stderr


def test_a_host_of_a_cluster_runs_join_with_its_secret_and_reloads_nothing() -> None:
    joined = Installation(
        user=False,
        python=Path(sys.executable),
        credentials=("api_keys", "cluster-token"),
        command=("cluster", "join", "front.lan"),
    )
    text = units(joined)["trillama.service"]
    assert f"ExecStart={sys.executable} -P -m launcher cluster join front.lan\n" in text
    assert (
        "LoadCredential=api_keys:%E/trillama/api_keys\nLoadCredential=cluster-token:%E/trillama/cluster-token" in text
    )
    assert "ExecReload" not in text
