"""One file of a Hugging Face hub, fetched into the hub's own cache.

`hf_hub_download` of huggingface_hub 2.4 throws away what it has when it is stopped. Here the half that is there stays
beside the cache's blobs, and the next start goes on from it; its content is checked against the hub's SHA-256.
The hub's client honours HF_HOME, HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE.
"""

import errno
import fcntl
import hashlib
import io
import os
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Self

import httpx2
from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
)
from huggingface_hub.file_download import http_get, repo_folder_name
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # public, loaded lazily

from launcher.errors import HubUnreachable, ModelError

BY_HAND = "or fetch the file by other means and name its place under [models.files] in the configuration"


def fetch(repo: str, filename: str, *, report: Callable[[int, int], None], stop: Event) -> Path:
    """The file's path in the cache. Blocks. A file that is there is not looked for on the network again.

    `report(bytes done, bytes in all)` is called as bytes arrive. Once `stop` is set, the next bytes to arrive raise
    CancelledError. Raises ModelError with the next step for the user, HubUnreachable where time may help.
    """
    try:
        if isinstance(cached := try_to_load_from_cache(repo, filename), str):
            return Path(cached)
        return _fetch(repo, filename, report, stop)
    except (HfHubHTTPError, HFValidationError) as error:
        raise refusal(error)(_refused(error, repo, filename)) from error
    except OfflineModeIsEnabled as error:
        raise ModelError(
            f"{filename} of {repo} is not in the cache {constants.HF_HUB_CACHE} and HF_HUB_OFFLINE forbids to fetch "
            f"it: unset HF_HUB_OFFLINE for one start, {BY_HAND}"
        ) from error
    except (LocalEntryNotFoundError, httpx2.HTTPError) as error:
        why = str(error) or type(error).__name__
        raise HubUnreachable(
            f"{constants.ENDPOINT} cannot be reached to fetch {filename} of {repo} ({why}): check the network and "
            f"start again, the download goes on where it stopped; {BY_HAND}"
        ) from error
    except OSError as error:
        raise ModelError(_not_written(error, filename)) from error


def refusal(error: HfHubHTTPError | HFValidationError) -> type[ModelError]:
    """HubUnreachable where the hub may answer later: it has too much to do, or is broken."""
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else 0
    return HubUnreachable if status in (408, 429) or status >= 500 else ModelError


def _fetch(repo: str, filename: str, report: Callable[[int, int], None], stop: Event) -> Path:
    url = hf_hub_url(repo, filename)
    found = get_hf_file_metadata(url)
    if found.etag is None or found.size is None:
        raise ModelError(f"{url}: the answer is not a hub's (no ETag or size); check HF_ENDPOINT, {BY_HAND}")
    blobs = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=repo, repo_type="model"), "blobs")
    blobs.mkdir(parents=True, exist_ok=True)
    blob, size = blobs / found.etag, found.size
    if not blob.exists():
        half = blobs / f"{found.etag}.trillama.incomplete"
        with _ours_alone(half, lambda done: report(done, size), stop) as partial:
            if blob.exists():
                partial.path.unlink(missing_ok=True)  # it did, and what we opened may be a new, empty file
            else:
                _complete(partial, url, size)
                _verify(partial, found.etag)
                partial.path.rename(blob)
    return Path(hf_hub_download(repo, filename))  # only names the blob: the cache has its content


@contextmanager
def _ours_alone(path: Path, report: Callable[[int], None], stop: Event) -> Iterator["_Partial"]:
    """The half that is there, locked: another launcher may be fetching the same file, and is waited for."""
    while True:
        with _Partial(path, report, stop) as partial:
            fcntl.flock(partial, fcntl.LOCK_EX)
            if _is_at(path, partial):
                yield partial
                return


def _is_at(path: Path, partial: "_Partial") -> bool:
    """Whether what we opened still has its name; who held it may have removed it, as damaged or as no longer wanted."""
    try:
        return os.path.samestat(path.stat(), os.fstat(partial.fileno()))
    except FileNotFoundError:
        return False


def _complete(partial: "_Partial", url: str, size: int) -> None:
    if partial.tell() > size:
        partial.truncate(0)
    missing, free = size - partial.tell(), shutil.disk_usage(partial.path.parent).free
    if missing > free:
        raise OSError(errno.ENOSPC, f"{missing / 2**30:.1f} GiB are missing, {free / 2**30:.1f} GiB are free")
    while True:
        before = partial.tell()
        try:
            http_get(
                url, partial, resume_size=before, headers=build_hf_headers(), expected_size=size, tqdm_class=_NoBar
            )
        except httpx2.ReadError:  # the one fault of the network that http_get does not resume after by itself
            if partial.tell() == before:
                raise
        else:
            return partial.flush()


def _verify(partial: "_Partial", etag: str) -> None:
    if not re.fullmatch("[0-9a-f]{64}", etag):  # a small file of git's own has a SHA-1 of another making
        return
    with partial.path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != etag:
        partial.path.unlink()
        raise ModelError(f"the download is damaged (SHA-256 {found}, not {etag}) and has been removed; start again")


class _Partial(io.BufferedWriter):
    """The half that is there, open at its end. Every write reports the bytes so far, or stops."""

    def __init__(self, path: Path, report: Callable[[int], None], stop: Event) -> None:
        super().__init__(io.FileIO(path, "ab"))
        self.path, self._report, self._stop = path, report, stop

    def write(self, data: bytes) -> int:  # type: ignore[override]  # http_get writes nothing but bytes
        if self._stop.is_set():
            raise CancelledError
        written = super().write(data)
        self._report(self.tell())
        return written


class _NoBar:
    """What http_get takes for a `tqdm`: we draw our own."""

    def __init__(self, **_: object) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def update(self, n: int) -> None: ...


def _refused(error: HfHubHTTPError | HFValidationError, repo: str, filename: str) -> str:
    page = f"{constants.ENDPOINT}/{repo}"
    if isinstance(error, HFValidationError):
        return f'"{repo}" is no name of a repository: set repo = "owner/name" in the family file'
    if isinstance(error, RemoteEntryNotFoundError):
        return f"{repo} has no file {filename}: set [models] quantization to one that is listed at {page}/tree/main"
    status = error.response.status_code
    if isinstance(error, RepositoryNotFoundError) or status in (401, 403):
        return (
            f"the hub does not let us read {repo} (HTTP {status}): check the name, accept the licence at {page}, and "
            f"set HF_TOKEN to a token of an account that may read it, {BY_HAND}"
        )
    return f"the hub answered HTTP {status} for {filename} of {repo}: try again later, {BY_HAND}"


def _not_written(error: OSError, filename: str) -> str:
    where = constants.HF_HUB_CACHE
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{filename}: the disk of {where} is full ({error.strerror}): make room or set HF_HOME to another disk"
    if error.errno == errno.EFBIG:
        return (
            f"{filename} is too large for the file system of {where} or for the limit of this process (`ulimit -f`): "
            "raise the limit or set HF_HOME to another disk; what has arrived is kept"
        )
    if error.errno is not None:
        return f"{filename} cannot be written to {where} ({error.strerror}): set HF_HOME to a folder you may write to"
    return f"{filename}: {error}"
