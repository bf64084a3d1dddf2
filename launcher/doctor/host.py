"""The checks of the machine itself, independent of the configuration."""

import platform
import re
import resource
import shutil
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

from launcher import __version__
from launcher.doctor.finding import Finding, fail, ok, warn
from launcher.host import wsl

MIN_PYTHON = (3, 11)
MIN_OPEN_FILES = 1024
PCI = Path("/sys/bus/pci/devices")
VENDORS = {"0x10de": "NVIDIA", "0x1002": "AMD"}
DISPLAY_CLASS = "0x03"  # PCI class of VGA and 3D controllers
_UNITS = (
    Path("/etc/systemd/system/trillama.service"),
    Path("/usr/lib/systemd/system/trillama.service"),
    Path("~/.config/systemd/user/trillama.service"),
)


def python() -> Finding:
    """The interpreter's version."""
    version = f"trillama {__version__} on Python {sys.version.split()[0]}"
    if sys.version_info < MIN_PYTHON:
        return fail(version, "install Python 3.11 or newer")
    return ok(version)


def packages() -> Finding:
    """Whether every package that trillama requires is installed."""
    try:
        required = metadata.requires("trillama") or []
    except metadata.PackageNotFoundError:
        return warn("trillama runs from a folder and is not installed", "pip install -e .")
    names = [found[0] for one in required if "extra ==" not in one and (found := re.match(r"[\w.-]+", one))]
    if missing := [name for name in names if not _installed(name)]:
        return fail(f"missing: {', '.join(missing)}", f"pip install {' '.join(missing)}")
    shown = ", ".join(f"{name} {metadata.version(name)}" for name in ("aiohttp", "numpy", "tokenizers"))
    return ok(f"{len(names)} are installed: {shown} …")


def nvidia_driver() -> Finding:
    """Whether an installed NVIDIA GPU can be used: driver, device files."""
    cards = pci_gpus().count("NVIDIA")
    if not (tool := shutil.which("nvidia-smi") or shutil.which("nvidia-smi", path=str(wsl.LIBRARIES))):
        if cards:
            return fail(
                f"{cards} NVIDIA GPU on the PCI bus, but no driver", "apt-get install nvidia-driver, and reboot"
            )
        return ok("there is no NVIDIA GPU and no nvidia-smi")
    output = _output_of(tool)
    if isinstance(output, Finding):
        return output
    if not wsl.wsl() and not list(Path("/dev").glob("nvidia[0-9]*")):
        return fail("the driver is installed, but there is no /dev/nvidia0", "nvidia-modprobe -c 0 -u")
    return ok("; ".join(output.splitlines()))


def _output_of(tool: str) -> str | Finding:
    """What nvidia-smi prints of the GPUs, or the finding that it does not work."""
    command = (tool, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader")
    try:
        answer = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=20, check=False)
    except OSError as error:
        return fail(f"{tool} cannot be run: {error.strerror}", "install the driver again")
    except subprocess.TimeoutExpired:
        return fail("nvidia-smi does not answer", "reboot: the driver hangs")
    if answer.returncode != 0:
        said = (answer.stdout or answer.stderr).strip().splitlines()
        return fail(
            f"nvidia-smi failed: {said[0] if said else answer.returncode}", "reboot, or install the driver again"
        )
    return answer.stdout.strip()


def clock(now_s: float | None = None) -> Finding:
    """Whether the clock is in a year in which TLS certificates are valid; `now_s` is in seconds since 1970."""
    now = time.gmtime(now_s)
    shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", now)
    if not 2026 <= now.tm_year < 2100:
        return fail(f"the clock says {shown}", "timedatectl set-ntp true")
    return ok(shown)


def open_files() -> Finding:
    """How many files and connections a process may have open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = "no limit" if soft == resource.RLIM_INFINITY else str(soft)
    if soft != resource.RLIM_INFINITY and soft < MIN_OPEN_FILES:
        raised = hard == resource.RLIM_INFINITY or hard >= MIN_OPEN_FILES
        fix = f"ulimit -n {MIN_OPEN_FILES}" if raised else "raise the hard limit: LimitNOFILE=, --ulimit, limits.conf"
        return warn(f"ulimit -n is {limit}: connections beyond that are refused", fix)
    return ok(f"ulimit -n: {limit}")


def systemd() -> Finding:
    """Whether a unit is installed, which is optional."""
    here = [str(path) for path in _UNITS if _is_file(path)]
    return ok(f"installed: {', '.join(here)}" if here else "no unit is installed: it runs when you start it")


def system(version: Path = wsl.VERSION, device: Path = wsl.DEVICE) -> Finding:
    """The operating system, and what matters where it runs inside Windows."""
    text = f"{platform.system()} {platform.release()} on {platform.machine()}, {' '.join(platform.libc_ver()).strip()}"
    kind = wsl.wsl(version)
    if kind is wsl.Wsl.ONE:
        return warn(f"{text} (WSL1): there is no GPU, and files are slow", "wsl --set-version DISTRIBUTION 2")
    if kind and not device.exists():
        return warn(f"{text} (WSL2): Windows shows it no GPU", "wsl --update, and a current driver, both in Windows")
    return ok(f"{text} (WSL2): the GPU's driver is Windows' own, in {wsl.LIBRARIES}" if kind else text.rstrip(", "))


def pci_gpus(devices: Path = PCI) -> list[str]:
    """The vendor of each GPU on the PCI bus."""
    found = []
    for device in sorted(devices.glob("*")):
        try:
            kind, vendor = ((device / name).read_text().strip() for name in ("class", "vendor"))
        except OSError:
            continue
        if kind.startswith(DISPLAY_CLASS) and vendor in VENDORS:
            found.append(VENDORS[vendor])
    return found


def _is_file(path: Path) -> bool:
    try:
        return path.expanduser().is_file()
    except (RuntimeError, OSError):  # there is no home, or we may not enter it
        return False


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
