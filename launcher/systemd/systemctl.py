"""systemd by way of systemctl, and the unit files on disk; every refusal becomes a ServiceError."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from launcher.errors import ServiceError
from launcher.systemd.units import MARK, UNITS

PROPERTIES = (
    "LoadState",
    "ActiveState",
    "SubState",
    "Result",
    "StateChangeTimestamp",
    "MainPID",
    "StatusText",
    "Listen",
)


@dataclass(frozen=True, slots=True)
class Manager:
    """The system's systemd, or the user's own one."""

    user: bool

    @property
    def command(self) -> tuple[str, ...]:
        """The command of its systemctl."""
        return ("systemctl", "--user") if self.user else ("systemctl",)

    def check(self) -> None:
        """Raise ServiceError, saying what to do, if it does not run or we may not control it."""
        if not (Path("/run/systemd/system").is_dir() and shutil.which("systemctl")):  # sd_booted(3)
            raise ServiceError(
                "systemd does not run here, so nothing was done: in a container make `trillama serve` its command and "
                "give it a restart policy; `trillama service install --dry-run` shows the unit for other machines"
            )
        if self.user and not Path(os.environ.get("XDG_RUNTIME_DIR", "/nonexistent"), "systemd").is_dir():
            raise ServiceError(
                "no systemd of the user runs for this login: log in as that user (not with su or sudo), "
                "or keep it running with `loginctl enable-linger` and log in again"
            )
        if not self.user and os.geteuid() != 0:
            raise ServiceError("system units belong to root: use sudo, or --user for a service of your own")

    def tell(self, *arguments: str) -> None:
        """Run systemctl to its end. Raises ServiceError with its message."""
        self._run(*self.command, *arguments)

    def show(self, unit: str) -> Mapping[str, str]:
        """Those of PROPERTIES that the unit has; values as systemctl prints them."""
        printed = self._run(*self.command, "show", unit, f"--property={','.join(PROPERTIES)}")
        return dict(line.split("=", 1) for line in printed.splitlines() if "=" in line)

    def log(self, unit: str, lines: int) -> str:
        """The unit's last lines in the journal; empty where there is no journal."""
        which = "--user-unit" if self.user else "--unit"
        command = ("journalctl", f"{which}={unit}", f"--lines={lines}", "--no-pager", "--quiet", "--output=cat")
        return self._run(*command) if shutil.which("journalctl") else ""

    def _run(self, *command: str) -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ServiceError(f"`{' '.join(command)}` failed: {done.stderr.strip() or f'exit code {done.returncode}'}")
        return done.stdout


def ours(folder: Path) -> tuple[str, ...]:
    """The names of the units in `folder` that `trillama service install` wrote."""
    return tuple(name for name in UNITS if _text(folder / name).startswith(MARK))


def foreign(folder: Path) -> tuple[str, ...]:
    """The names of the units in `folder` that bear our names but were not written by us."""
    return tuple(name for name in UNITS if os.path.lexists(folder / name) and name not in ours(folder))


def write_units(folder: Path, texts: Mapping[str, str]) -> None:
    """Write the units, each one atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        new = folder / f".{name}.new"
        new.write_text(text, encoding="utf-8")
        new.chmod(0o644)
        new.replace(folder / name)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
