"""What `trillama service` installs: the units' text, their folder, and which paths the service could not read.

The templates are configs/systemd/trillama.service and .socket; see systemd.unit(5) for the syntax.
"""

import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from launcher.errors import ConfigError
from launcher.settings.config import HostConfig, Settings, configs_dir
from launcher.settings.folders import home

MARK = (
    "# Written by `trillama service install`, which will overwrite it: put changes into a drop-in (`systemctl edit`)."
)
SERVICE_UNIT, SOCKET_UNIT = "trillama.service", "trillama.socket"
UNITS = (SERVICE_UNIT, SOCKET_UNIT)
HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108 # by ProtectHome= and PrivateTmp=
RELOAD = re.compile(r"^ExecReload=.*\n", re.MULTILINE)  # `serve` alone reads its settings again
SYSTEM_ONLY = re.compile(r"^# System only.*\n(?:.+\n)+\n?", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """One service: the user's or the system's, its interpreter and configuration, and its socket unit's address.

    `command` is what it runs, `credentials` are the files in the settings' folder that it may read.
    """

    user: bool
    python: Path
    config: Path | None = None
    listen: str | None = None
    credentials: tuple[str, ...] = ()
    command: tuple[str, ...] = ("serve",)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its units."""
        return UNITS if self.listen else (SERVICE_UNIT,)


def units(installation: Installation) -> dict[str, str]:
    """Each unit's text by its name. Raises ConfigError for a path that cannot be written in a unit."""
    folder = configs_dir() / "systemd"
    templates = {name: (folder / name).read_text(encoding="utf-8") for name in installation.names}
    texts = {SERVICE_UNIT: _service(templates[SERVICE_UNIT], installation)}
    if installation.listen:
        texts[SOCKET_UNIT] = with_setting(templates[SOCKET_UNIT], "ListenStream", installation.listen)
    return {name: f"{MARK}\n{text[text.index('[Unit]') :]}" for name, text in texts.items()}


def unit_folder(user: bool, environ: Mapping[str, str] = os.environ) -> Path:
    """The folder of an administrator's or a user's own units (systemd.unit(5), "Unit File Load Path")."""
    if not user:
        return Path("/etc/systemd/system")
    return Path(environ.get("XDG_CONFIG_HOME") or home() / ".config", "systemd/user")


def settings_folder(user: bool, environ: Mapping[str, str] = os.environ) -> Path:
    """The folder in which `host.toml` and `api_keys` are looked for."""
    return Path(environ.get("XDG_CONFIG_HOME") or home() / ".config", "trillama") if user else Path("/etc/trillama")


def with_setting(text: str, name: str, value: str) -> str:
    """A unit's text with the one line `name=…`, or `# name=…`, replaced."""
    line = re.compile(rf"^(?:# )?{name}=.*$", re.MULTILINE)
    changed, count = line.subn(lambda _: f"{name}={value}", text)
    if count != 1:
        raise ConfigError(f"the unit's template has {count} lines {name}=, not one: install trillama again")
    return changed


def systemd_quoted(argument: str) -> str:
    """One word of a command line as systemd reads it (systemd.service(5), "Command lines")."""
    if not argument.isprintable():
        raise ConfigError(f"{argument!r} cannot be written in a unit: give the file a name without control characters")
    plain = argument.replace("%", "%%").replace("$", "$$")
    return plain if re.fullmatch(r"[\w%$./:@=+,-]+", plain) else '"' + re.sub(r'(["\\])', r"\\\1", plain) + '"'


def address(host: HostConfig) -> str:
    """The socket unit's ListenStream=. Raises ConfigError for port 0, which systemd cannot listen on."""
    if host.port == 0:
        raise ConfigError("port = 0 takes a free port, which a socket unit cannot: set a port in the configuration")
    name = {"localhost": "127.0.0.1"}.get(host.host, host.host)
    return f"[{name}]:{host.port}" if ":" in name else f"{name}:{host.port}"


def unreadable(settings: Settings, config: Path | None) -> Iterator[str]:
    """Each path that the system service needs but its user could not read, with the reason."""
    host = settings.host
    code = (Path(sys.prefix), Path(sys.base_prefix), Path(__file__).parents[1])
    given = (config, settings.family_file, host.engine.llama_server, *host.models.files.values())
    for path in dict.fromkeys((*code, *filter(None, given))):
        if reason := obstacle(path):
            yield f"{path}: {reason}"


def obstacle(path: Path) -> str | None:
    """Why an unprivileged user under ProtectHome= and PrivateTmp= could not read this path; None if it could."""
    for route in dict.fromkeys((path.absolute(), path.resolve())):  # as it is named, and where its links lead
        if hidden := next((one for one in HIDDEN if route.is_relative_to(one)), None):
            return f"what is in {hidden} is hidden from it"
        for part in (*reversed(route.parents), route):
            if not part.exists():
                return f"{part} does not exist"
            mode = part.stat().st_mode
            needed = (0o4 if part == route else 0) | (0o1 if part.is_dir() else 0)  # others: read, pass through
            if mode & needed != needed:
                return f"{part} may not be read by others (mode {mode & 0o777:o})"
    return None


def _service(template: str, installation: Installation) -> str:
    config = ("--config", str(installation.config)) if installation.config else ()
    command = (str(installation.python), "-P", "-m", "launcher", *installation.command, *config)
    text = with_setting(template, "ExecStart", " ".join(systemd_quoted(word) for word in command))
    if installation.credentials:
        lines = (f"{name}:%E/trillama/{name}" for name in installation.credentials)
        text = with_setting(text, "LoadCredential", "\nLoadCredential=".join(lines))
    if installation.command != ("serve",):
        text = RELOAD.sub("", text)
    if installation.listen:
        text = with_setting(with_setting(text, "Requires", SOCKET_UNIT), "Sockets", SOCKET_UNIT)
    if installation.user:
        text = with_setting(SYSTEM_ONLY.sub("", text), "WantedBy", "default.target")
    return text
