"""Linux inside Windows: whether it is, and where the driver of Windows' GPU is then."""

from enum import StrEnum
from pathlib import Path

VERSION = Path("/proc/version")
LIBRARIES = Path("/usr/lib/wsl/lib")  # libcuda and nvidia-smi, put there by Windows
DEVICE = Path("/dev/dxg")  # its GPU; there is no /dev/nvidia0


class Wsl(StrEnum):
    ONE = "WSL1"
    TWO = "WSL2"


def wsl(version: Path = VERSION) -> Wsl | None:
    """Which one this is; None on a Linux of its own. The kernel's release ends in -Microsoft or -microsoft-standard."""
    try:
        text = version.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    if "microsoft" not in text.lower():
        return None
    return Wsl.ONE if "-Microsoft" in text else Wsl.TWO
