"""The layout of one file in the hub's cache: its content under `blobs`, named by checksum, and a link with its name.

Without symbolic links (some file systems, HF_HUB_DISABLE_SYMLINKS) the content is under the file's name, with no blob.
"""

import errno
import os
from pathlib import Path

from huggingface_hub import constants, try_to_load_from_cache
from huggingface_hub.file_download import repo_folder_name

from launcher.hub.client import SHA256, RemoteFile
from launcher.settings.folders import hub_cache

INCOMPLETE = ".trillama.incomplete"  # suffix of partial downloads
NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})


def folder_of(repo: str) -> Path:
    """The repository's folder; it need not exist."""
    return hub_cache() / repo_folder_name(repo_id=repo, repo_type="model")


def blobs_of(repo: str) -> Path:
    return folder_of(repo) / "blobs"


def find_cached(repo: str, name: str) -> Path | None:
    """The file that the last fetch stored; None also if the cache is damaged, which a fetch repairs."""
    try:
        path = try_to_load_from_cache(repo, name)
    except (OSError, ValueError):  # a ref that is not text, an unreadable folder, an invalid file name
        return None
    return Path(path) if isinstance(path, str) else None


def sha256_in_name(path: Path) -> str | None:
    """The SHA-256 under which the cache stores that content; None if the cache does not know it."""
    name = path.resolve().name
    return name if SHA256.fullmatch(name) else None


def find_content(file: RemoteFile) -> Path | None:
    """The file's content in the cache, or whatever is stored under its name."""
    paths = [blobs_of(file.repo) / file.checksum] if file.checksum else []
    return next((path for path in (*paths, _entry(file)) if path.is_file()), None)


def add(partial: Path, file: RemoteFile, checksum: str) -> Path:
    """Store the completed download, so that `find_cached` finds it. Returns its path. Raises OSError."""
    blob = blobs_of(file.repo) / checksum
    partial.replace(blob)
    return publish(blob, file)


def _entry(file: RemoteFile) -> Path:
    return folder_of(file.repo) / "snapshots" / file.commit / file.name


def publish(blob: Path, file: RemoteFile) -> Path:
    """Let `find_cached` find that content under the file's name. Returns its path. Raises OSError."""
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
    """Create the link if the file system and the user's settings allow it; returns whether they do."""
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
