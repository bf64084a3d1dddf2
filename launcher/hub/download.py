"""Fetches one file of a Hugging Face hub into the hub's own cache.

`hf_hub_download` of huggingface_hub 2.4 discards a partial download when it is stopped, uses any ETag as a file name,
and asks the hub twice. Here the partial download stays beside the cache's blobs and the next start resumes it; the
content is checked against the hub's checksum, and is never larger than the hub announced.
"""

import errno
import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Self

import httpx2
from huggingface_hub import constants, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # public, loaded lazily

from launcher.errors import DamagedFile, HubUnreachable, NotWritten
from launcher.host.disk import amount, free_bytes
from launcher.hub import cache_entry
from launcher.hub.cache_entry import INCOMPLETE
from launcher.hub.client import SHA256, HubRequest, RemoteFile, find, translate_errors
from launcher.hub.partial_download import DownloadTarget, PartialDownload, open_locked
from launcher.settings.folders import hub_cache

BY_HAND = "or fetch the file by other means and set its path under [models.files] in the configuration"


log = logging.getLogger(__name__)


def fetch(repo: str, filename: str, *, report: Callable[[int, int], None], stop: Event, damaged: bool = False) -> Path:
    """The file's path in the cache, downloaded if needed. Blocks. A file in the cache needs no network.

    With `damaged` a file in the cache is not trusted: it is compared with the hub's checksum, and completed or
    replaced. `report(bytes done, bytes in all)` is called as bytes arrive. Once `stop` is set, the next bytes to arrive
    raise CancelledError. Raises ModelError with the user's next step, HubUnreachable if waiting may help, ConfigError
    if the environment lets no hub be asked.
    """
    if not damaged and (path := cache_entry.find_cached(repo, filename)):
        return path
    request = HubRequest(
        repo=repo,
        object=filename,
        verb="fetch",
        otherwise=BY_HAND,
        missing="set [models] quantization to one that is listed at {page}/tree/main",
    )
    with translate_errors(request):
        file = find(repo, filename)
        with _write_errors(file):
            return _fetch(file, DownloadTarget(size=file.size, report=report, stop=stop), trusted=not damaged)


def _fetch(file: RemoteFile, target: DownloadTarget, *, trusted: bool) -> Path:
    blobs, key = cache_entry.blobs_of(file.repo), file.checksum or _substitute_key(file)
    blobs.mkdir(parents=True, exist_ok=True)
    with open_locked(blobs / key, target) as partial:
        content = cache_entry.find_content(file)
        if content and _is_complete(content, file, trusted=trusted):
            partial.path.unlink(missing_ok=True)  # another process fetched it; what we opened may be a new file
            return cache_entry.publish(content, file)
        resumed_at = partial.tell()
        _complete(partial, file)
        if resumed_at and not _matches(partial.path, file):  # the part from before is damaged, not the new one
            partial.empty()
            _complete(partial, file)
        return cache_entry.add(partial.path, file, _verified(partial, file))


def _substitute_key(file: RemoteFile) -> str:
    """A name for the partial download of a file without a checksum."""
    return hashlib.sha256(f"{file.repo}\n{file.name}\n{file.commit}".encode()).hexdigest()


def _is_complete(content: Path, file: RemoteFile, *, trusted: bool) -> bool:
    return content.stat().st_size == file.size and (trusted or _matches(content, file))


def _matches(content: Path, file: RemoteFile) -> bool:
    return _digest(content, file) == file.checksum


def _complete(partial: PartialDownload, file: RemoteFile) -> None:
    if partial.tell() > file.size or not file.checksum:  # without a checksum, a resumed file could not be verified
        partial.empty()
    if file.size - partial.tell() > free_bytes(partial.path.parent):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    url = hf_hub_url(file.repo, file.name, revision=file.commit)
    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    while True:
        before = partial.tell()
        try:
            http_get(url, partial, resume_size=before, headers=headers, expected_size=file.size, tqdm_class=_NoBar)
        except httpx2.ReadError:  # the one network error after which http_get does not resume by itself
            if partial.tell() <= before:
                raise
        else:
            return partial.flush()


def _verified(partial: PartialDownload, file: RemoteFile) -> str:
    """The checksum of the download. Raises DamagedFile if it differs from the hub's."""
    found = _digest(partial.path, file)
    if file.checksum is None:
        log.warning(
            "the hub gives no checksum of %s: its content cannot be verified; it is stored under its own SHA-256", file
        )
    elif found != file.checksum:
        partial.path.unlink()
        raise DamagedFile(
            f"{file}: the download is damaged (its checksum is {found}, not {file.checksum}) and has been removed; "
            "start again"
        )
    return found


def _digest(path: Path, file: RemoteFile) -> str:
    """SHA-256, or git's SHA-1 of the blob if the hub gives that, as it does for small files."""
    git = file.checksum is not None and not SHA256.fullmatch(file.checksum)
    algorithm = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False) if git else hashlib.sha256()
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, lambda: algorithm).hexdigest()


class _NoBar:
    """Stands in for `tqdm` in http_get: we draw our own progress bar."""

    def __init__(self, **_: object) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def update(self, n: int) -> None: ...


@contextmanager
def _write_errors(file: RemoteFile) -> Iterator[None]:
    """Turns errors of the disk into NotWritten; errors of the hub's client pass through."""
    try:
        yield
    except HfHubHTTPError:  # an OSError, but not of the disk
        raise
    except OSError as error:
        if error.errno is None:  # http_get's own: fewer bytes arrived than announced
            raise HubUnreachable(
                f"{constants.ENDPOINT} did not send the {file.size} bytes that it announced for {file}: start again, "
                f"{BY_HAND}"
            ) from error
        raise NotWritten(_not_written(error, file)) from error


def _not_written(error: OSError, file: RemoteFile) -> str:
    where = hub_cache()
    room = f"{amount(_missing(file))} are missing, {amount(free_bytes(where))} are free"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"{file.name}: the disk of {where} is full ({error.strerror}): make room or set HF_HOME to a folder on "
            f"another disk; {room}, and what has arrived is kept"
        )
    if error.errno == errno.EFBIG:
        return (
            f"{file.name} is too large for the file system of {where} or for the limit of this process (`ulimit -f`): "
            f"raise the limit or set HF_HOME to another disk; {room}, and what has arrived is kept"
        )
    return (
        f"{file.name} cannot be written to {where} ({error.strerror}): set HF_HOME to a folder that you may write to; "
        f"{room}"
    )


def _missing(file: RemoteFile) -> int:
    partial = cache_entry.blobs_of(file.repo) / f"{file.checksum or _substitute_key(file)}{INCOMPLETE}"
    return file.size - (partial.stat().st_size if partial.is_file() else 0)
