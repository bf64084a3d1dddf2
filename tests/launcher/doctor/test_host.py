"""The lines of `trillama doctor` that are about the machine itself."""

import resource
from pathlib import Path

import pytest

from launcher.doctor import host
from launcher.doctor.finding import Level
from tests.support.host.programs import program


@pytest.mark.parametrize(
    ("body", "level", "said"),
    [
        ("echo 'NVIDIA-SMI has failed: no driver'; exit 9", Level.FAIL, "nvidia-smi failed: NVIDIA-SMI has failed"),
        ("echo 'NVIDIA X, 590.1, 8188 MiB'", Level.FAIL, "the driver is installed, but there is no /dev/nvidia0"),
    ],
)
def test_a_driver_that_does_not_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, level: Level, said: str
) -> None:
    program(tmp_path / "nvidia-smi", body)
    monkeypatch.setenv("PATH", str(tmp_path))
    if Path("/dev/nvidia0").exists() and "590" in body:
        pytest.skip("this machine has an NVIDIA GPU")
    found = host.nvidia_driver()
    assert found.level is level
    assert said in found.text


@pytest.mark.parametrize(
    ("version", "gpu", "level", "said"),
    [
        ("Linux version 6.6.87.2-microsoft-standard-WSL2 (root@x) #1 SMP", True, Level.OK, "driver is Windows' own"),
        ("Linux version 6.6.87.2-microsoft-standard-WSL2 (root@x) #1 SMP", False, Level.WARN, "shows it no GPU"),
        ("Linux version 4.4.0-19041-Microsoft (Microsoft@Microsoft.com)", False, Level.WARN, "WSL1"),
        ("Linux version 6.1.0-13-amd64 (debian-kernel@lists.debian.org)", False, Level.OK, "Linux"),
        (None, False, Level.OK, "Linux"),
    ],
)
def test_linux_inside_windows_is_known(tmp_path: Path, version: str | None, gpu: bool, level: Level, said: str) -> None:
    if version:
        (tmp_path / "version").write_text(version)
    if gpu:
        (tmp_path / "dxg").touch()
    found = host.system(tmp_path / "version", tmp_path / "dxg")
    assert (found.level, said in found.text) == (level, True)


def test_gpus_are_found_on_the_pci_bus(tmp_path: Path) -> None:
    for name, kind, vendor in (("0", "0x030200", "0x10de"), ("1", "0x020000", "0x10de"), ("2", "0x030000", "0x1002")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "class").write_text(f"{kind}\n")
        (tmp_path / name / "vendor").write_text(f"{vendor}\n")
    assert host.pci_gpus(tmp_path) == ["NVIDIA", "AMD"]


def test_a_clock_without_a_battery_is_found() -> None:
    assert host.clock().level is Level.OK
    assert host.clock(0.0).text == "the clock says 1970-01-01 00:00:00 UTC"


def test_few_open_files_are_a_warning() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    try:
        assert host.open_files().level is Level.WARN
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
