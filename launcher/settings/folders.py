"""Where we keep files on this host, and which variable moves each folder. Only this file looks up the home folder."""

import errno
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path, user_log_path

from launcher.errors import ConfigError, DiskError, LauncherError
from launcher.host.disk import amount, free_bytes

NO_HOME = (
    "no home folder is known (HOME is not set, and the user has no entry in passwd): set HOME, or TRILLAMA_CACHE for "
    "builds and caches and HF_HOME for the models, to a writable folder"
)
LONGEST_SOCKET_PATH = 107  # bytes of a UNIX socket's path: sun_path in unix(7), without its final zero
LONGEST_NAME = 32  # bytes of a socket's name: our longest, and room for another family's
LONGEST_BASE = LONGEST_SOCKET_PATH - LONGEST_NAME - len("/trillama-xxxxxxxx/")
# Time or a larger disk may fix these.
DISK_ERRORS = frozenset({errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EFBIG, errno.EIO})


@dataclass(frozen=True, slots=True)
class Place:
    """One of our folders. `moved_by` is the variable that moves it."""

    what: str
    path: Callable[[], Path]
    moved_by: str


def cache_dir() -> Path:
    """Where built engines and models made here are kept: $TRILLAMA_CACHE, else the user's cache folder.

    Raises ConfigError if the user has neither, as all functions here do.
    """
    given = os.environ.get("TRILLAMA_CACHE")
    return _readable(expanded(Path(given)), "TRILLAMA_CACHE") if given else _of_user(user_cache_path)


def state_dir() -> Path:
    """Golden vectors and batches, which must outlive a cleared cache: systemd's folder, else the cache folder."""
    given = _of_systemd("STATE_DIRECTORY")
    return Path(given) if given else cache_dir()


def log_dir() -> Path:
    """Each backend's output: systemd's folder, else the user's log folder, else `log` in the cache folder."""
    if given := _of_systemd("LOGS_DIRECTORY"):
        return Path(given)
    try:
        return _of_user(user_log_path)
    except ConfigError:
        return cache_dir() / "log"


def hub_cache() -> Path:
    """Where huggingface_hub keeps models: $HF_HUB_CACHE, $HF_HOME, or in the user's cache folder."""
    from huggingface_hub import constants  # noqa: PLC0415 # reads variables that `environment` must check first

    path = Path(constants.HF_HUB_CACHE)
    if str(path).startswith("~"):  # else a folder named `~` would be created in the working directory
        raise ConfigError(NO_HOME)
    return _readable(path, "HF_HOME")


def runtime_base() -> Path:
    """The parent of the private folder with our sockets: systemd's folder, the user's runtime folder, or /tmp.

    Skips folders that we cannot write (another user's after `su`) or whose path is too long for sockets.
    """
    given = (_of_systemd("RUNTIME_DIRECTORY"), os.environ.get("XDG_RUNTIME_DIR", ""), _temporary(), "/tmp")  # noqa: S108 # the last of them
    for path in map(Path, filter(None, given)):
        if path.is_dir() and _may_write(path) and fits_sockets(path):
            return path
    raise ConfigError("no writable folder for sockets: set runtime_dir, or TMPDIR, to one with a short path")


def fits_sockets(base: Path) -> bool:
    """Whether the paths of our sockets below it are short enough."""
    return len(os.fsencode(base.absolute())) <= LONGEST_BASE


def expanded(path: Path) -> Path:
    """The path with `~` replaced. Raises ConfigError if there is no home folder."""
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{path}: {NO_HOME}") from error


def home() -> Path:
    """The user's home folder. Raises ConfigError if there is none."""
    return expanded(Path("~"))


def make_folder(place: Place) -> Path:
    """Create the folder if needed. Raises ConfigError or DiskError naming it and the variable that moves it."""
    path = place.path()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(error, path, f"{place.moved_by}, or HOME,") from error
    return path


def write_error(error: OSError, path: Path, moved_by: str) -> LauncherError:
    """The error for a file or folder that we could not write: the system's reason, and the fix."""
    words = f"{path}: {error.strerror or error}"
    if error.errno == errno.EROFS:  # however much space is free
        return DiskError(f"{words}: set {moved_by} to a folder on another disk")
    if error.errno in DISK_ERRORS or error.errno is None:  # NumPy gives no errno, only how much it wrote
        free = f"{amount(free_bytes(path.absolute()))} free"
        return DiskError(f"{words} ({free}): make room, or set {moved_by} to a folder on another disk")
    return ConfigError(f"{words}: set {moved_by} to a writable folder")


def _may_write(folder: Path) -> bool:
    """Whether the effective user may create files there; the real user, where the system cannot tell."""
    return os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids)


def explain_write_error(error: OSError) -> LauncherError | None:
    """The error for one of our files that could not be written, naming its folder; None for any other file."""
    if not isinstance(error.filename, str | bytes):
        return None
    file = Path(os.fsdecode(error.filename))
    for place in PLACES:
        try:
            folder = place.path()
        except ConfigError:
            continue
        if file == folder or folder in file.parents or file in folder.parents:
            return write_error(error, file, f"{place.moved_by}, or HOME,")
    return None


def write_obstacle(path: Path) -> str | None:
    """Why no file can be created below that folder, which need not exist yet; None if one can."""
    existing = next((one for one in (path.absolute(), *path.absolute().parents) if os.path.lexists(one)), Path("/"))
    if not existing.is_dir():
        return f"{existing} is not a folder"
    if not _may_write(existing):
        read_only = os.statvfs(existing).f_flag & os.ST_RDONLY
        return f"{existing} {'is on a read-only disk' if read_only else 'cannot be written by this user'}"
    return None


def noexec(path: Path) -> bool:
    """Whether programs below that folder, which need not exist yet, may not be executed."""
    existing = next((one for one in (path.absolute(), *path.absolute().parents) if one.exists()), Path("/"))
    return bool(os.statvfs(existing).f_flag & os.ST_NOEXEC)


def _of_user(path: Callable[[str], Path]) -> Path:
    try:
        found = path("trillama")
    except RuntimeError as error:  # raised by platformdirs without a home
        raise ConfigError(NO_HOME) from error
    if not found.is_absolute():  # returned by its earlier releases
        raise ConfigError(NO_HOME)
    return _readable(found, "HOME")


def _readable(path: Path, moved_by: str) -> Path:
    """The path, if it is UTF-8, in which our other processes read it. Raises ConfigError otherwise."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"{path} is not in UTF-8: set {moved_by} to a folder whose name is") from error
    return path


def _of_systemd(name: str) -> str:
    return os.environ.get(name, "").split(":")[0]


def _temporary() -> str:
    try:
        return tempfile.gettempdir()
    except FileNotFoundError:  # none is writable
        return ""


CACHE = Place("cache", cache_dir, "TRILLAMA_CACHE")
LOGS = Place("logs", log_dir, "XDG_STATE_HOME")
HUB = Place("models", hub_cache, "HF_HOME")
PLACES = (CACHE, Place("state", state_dir, "STATE_DIRECTORY"), LOGS, HUB)
