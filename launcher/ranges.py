"""Pieces of a hub's file by HTTP Range, where the whole would be gigabytes.

The requests go through the hub's own client, which honours HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE, follows the hub to
where it keeps large files, and leaves the token behind there.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus

import httpx2
from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # public, loaded lazily
    build_hf_headers,
    hf_raise_for_status,
    http_stream_backoff,
)

from launcher.download import refusal
from launcher.errors import HubUnreachable, ModelError


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    """A file of a repository at one commit. `etag` is the hub's checksum of the whole: SHA-256 of a large file."""

    repo: str
    name: str
    commit: str
    size: int
    etag: str

    def __str__(self) -> str:
        return f"{self.name} of {self.repo}"


def find(repo: str, name: str, *, commit: str | None = None) -> RemoteFile:
    """The file as it is at that commit, the newest by default. Blocks. Raises ModelError with the next step."""
    with _translated(repo, name):
        url = hf_hub_url(repo, name, revision=commit)
        found = get_hf_file_metadata(url)
    if not (found.commit_hash and found.etag and found.size is not None):
        raise ModelError(f"{url}: the answer is not a hub's (no commit, ETag or size): check HF_ENDPOINT")
    return RemoteFile(repo=repo, name=name, commit=found.commit_hash, size=found.size, etag=found.etag)


def read(file: RemoteFile, start: int, length: int) -> bytes:
    """Those bytes of the file, and no others: a server that would send the whole is hung up on.

    Blocks. Raises ModelError with the next step, also for a piece that is not inside the file or comes short.
    """
    end = start + length
    if not 0 <= start < end <= file.size:
        raise ModelError(f"{file} has {file.size} bytes, and {start} to {end} are asked for: the file is damaged")
    headers = {**build_hf_headers(), "Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"}
    with (
        _translated(file.repo, file.name),
        http_stream_backoff(
            "GET",
            hf_hub_url(file.repo, file.name, revision=file.commit),
            headers=headers,
            timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
            max_retries=3,
            retry_on_exceptions=(),  # it would try again inside our `with` block when a body breaks off
        ) as answer,
    ):
        hf_raise_for_status(answer)
        _check_partial(answer, file, start, length)
        content = _at_most(answer, length + 1)
    if len(content) != length:
        raise ModelError(f"{len(content)} bytes of {file} came where {length} were asked for: start again")
    return content


def _check_partial(answer: httpx2.Response, file: RemoteFile, start: int, length: int) -> None:
    """Before a byte is read: the answer is that piece, or a whole file that is no larger."""
    if answer.status_code == HTTPStatus.OK and (start, length) == (0, file.size):
        return
    if answer.status_code != HTTPStatus.PARTIAL_CONTENT:
        raise ModelError(
            f"{answer.url.host} ignores HTTP Range and would send all {file.size} bytes of {file}: nothing was read; "
            "set HF_ENDPOINT to a hub or mirror that serves ranges"
        )
    expected = f"bytes {start}-{start + length - 1}/{file.size}"
    if (given := answer.headers.get("Content-Range")) != expected:
        raise ModelError(f"{answer.url.host} sent {given} of {file} where {expected} was asked for: start again")


def _at_most(answer: httpx2.Response, most: int) -> bytes:
    content = bytearray()
    for part in answer.iter_raw():
        content += part
        if len(content) >= most:
            break
    return bytes(content[:most])


@contextmanager
def _translated(repo: str, name: str) -> Iterator[None]:
    try:
        yield
    except (HfHubHTTPError, HFValidationError) as error:
        raise refusal(error)(_refused(error, repo, name)) from error
    except OfflineModeIsEnabled as error:
        raise ModelError(
            f"{name} of {repo} must be read from the hub and HF_HUB_OFFLINE forbids it: unset HF_HUB_OFFLINE for this "
            "one command, or copy what it makes from another machine"
        ) from error
    except (httpx2.HTTPError, OSError) as error:
        why = str(error) or type(error).__name__
        raise HubUnreachable(
            f"{constants.ENDPOINT} cannot be reached to read {name} of {repo} ({why}): check the network and start "
            "again"
        ) from error


def _refused(error: HfHubHTTPError | HFValidationError, repo: str, name: str) -> str:
    page = f"{constants.ENDPOINT}/{repo}"
    if isinstance(error, HFValidationError):
        return f'"{repo}" is no name of a repository: set repo = "owner/name" in the family file'
    if isinstance(error, RemoteEntryNotFoundError):
        return f"{repo} has no file {name}: see {page}/tree/main and name it as it is there in the family file"
    status = error.response.status_code
    if isinstance(error, RepositoryNotFoundError) or status in (401, 403):
        return (
            f"the hub does not let us read {repo} (HTTP {status}): check the name, accept the licence at {page}, and "
            "set HF_TOKEN to a token of an account that may read it"
        )
    return f"the hub answered HTTP {status} for {name} of {repo}: try again later"
