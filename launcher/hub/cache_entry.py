"""Where the hub's cache keeps one file: its content by checksum under `blobs`, its name as a link to that.

A file system without symbolic links (or HF_HUB_DISABLE_SYMLINKS) has the content under its name, and no blob.
"""

import errno
import os
from pathlib import Path

from huggingface_hub import constants, try_to_load_from_cache
from huggingface_hub.file_download import repo_folder_name

from launcher.hub.client import SHA256, RemoteFile
from launcher.settings.folders import hub_cache

INCOMPLETE = ".trillama.incomplete"  # ends the name of what has arrived of a content
NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})


def folder_of(repo: str) -> Path:
    """The repository's folder; it need not exist."""
    return hub_cache() / repo_folder_name(repo_id=repo, repo_type="model")


def blobs_of(repo: str) -> Path:
    return folder_of(repo) / "blobs"


def find_cached(repo: str, name: str) -> Path | None:
    """The file as the last fetch left it; None also where the cache is damaged, which a fetch repairs."""
    try:
        path = try_to_load_from_cache(repo, name)
    except (OSError, ValueError):  # a reference that is no text, a folder that may not be read, no name of a file
        return None
    return Path(path) if isinstance(path, str) else None


def sha256_in_name(path: Path) -> str | None:
    """The SHA-256 that the cache gives to the content at that path; None where it does not know it."""
    name = path.resolve().name
    return name if SHA256.fullmatch(name) else None


def find_content(file: RemoteFile) -> Path | None:
    """Where the cache has the file's content, or another one under its name."""
    paths = [blobs_of(file.repo) / file.checksum] if file.checksum else []
    return next((path for path in (*paths, _entry(file)) if path.is_file()), None)


def add(half: Path, file: RemoteFile, checksum: str) -> Path:
    """Make the whole content at `half` the file that `cached` finds. Its path. Raises OSError."""
    blob = blobs_of(file.repo) / checksum
    half.replace(blob)
    return publish(blob, file)


def _entry(file: RemoteFile) -> Path:
    return folder_of(file.repo) / "snapshots" / file.commit / file.name


def publish(blob: Path, file: RemoteFile) -> Path:
    """Let `cached` find that content under the file's name. Its path. Raises OSError."""
    path = _entry(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    if blob != path and not _link(path, blob):
        blob.replace(path)
    reference = folder_of(file.repo) / "refs" / constants.DEFAULT_REVISION
    reference.parent.mkdir(parents=True, exist_ok=True)
    new = reference.with_name(f".{reference.name}.{os.getpid()}")
    new.write_text(file.commit, encoding="ascii")
    new.replace(reference)
    return path


def _link(path: Path, blob: Path) -> bool:
    """Whether there is a link now: some file systems have none, and some users want none."""
    if constants.HF_HUB_DISABLE_SYMLINKS:
        return False
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.unlink(missing_ok=True)
    try:
        new.symlink_to(os.path.relpath(blob, path.parent))
    except OSError as error:
        if error.errno in NO_LINKS:
            return False
        raise
    new.replace(path)
    return True
