"""Whether this is Linux inside Windows (WSL), and where WSL puts the GPU driver."""

from enum import StrEnum
from pathlib import Path

VERSION = Path("/proc/version")
LIBRARIES = Path("/usr/lib/wsl/lib")  # libcuda and nvidia-smi, put here by Windows
DEVICE = Path("/dev/dxg")  # the GPU; there is no /dev/nvidia0


class Wsl(StrEnum):
    ONE = "WSL1"
    TWO = "WSL2"


def wsl(version: Path = VERSION) -> Wsl | None:
    """The version of WSL; None on any other Linux. Its kernel's release ends in -Microsoft or -microsoft-standard."""
    try:
        text = version.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    if "microsoft" not in text.lower():
        return None
    return Wsl.ONE if "-Microsoft" in text else Wsl.TWO
