"""Reads parts of a hub's file by HTTP Range, where the whole file would be gigabytes.

Requests go through the hub's own client, which honours HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE, follows redirects to
where the hub stores large files, and does not send the token there.
"""

from dataclasses import dataclass
from http import HTTPStatus

import httpx2
from huggingface_hub import constants, hf_hub_url
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # public, loaded lazily
    build_hf_headers,
    hf_raise_for_status,
    http_stream_backoff,
)

from launcher.errors import ModelError
from launcher.hub import client
from launcher.hub.client import HubRequest, RemoteFile, translate_errors


@dataclass(frozen=True, slots=True)
class RangedFile:
    """A hub's file as `launcher.conversion.safetensors` reads it."""

    file: RemoteFile

    @property
    def size(self) -> int:
        return self.file.size

    def read(self, start: int, length: int) -> bytes:
        return read_range(self.file, start, length)

    def __str__(self) -> str:
        return str(self.file)


def find_remote(repo: str, name: str, *, commit: str | None = None) -> RemoteFile:
    """The file at that commit, by default the newest. Blocks. Raises ModelError with the next step."""
    with translate_errors(_request(repo, name)):
        return client.find(repo, name, commit=commit)


def read_range(file: RemoteFile, start: int, length: int) -> bytes:
    """Those bytes of the file and no others: if a server would send all of it, the connection is closed.

    Blocks. Raises ModelError with the next step, also for a range outside the file or a short answer.
    """
    end = start + length
    if not 0 <= start < end <= file.size:
        raise ModelError(f"{file} has {file.size} bytes, but {start} to {end} are requested: the file is damaged")
    headers = {**build_hf_headers(), "Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"}
    with (
        translate_errors(_request(file.repo, file.name)),
        http_stream_backoff(
            "GET",
            hf_hub_url(file.repo, file.name, revision=file.commit),
            headers=headers,
            timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
            max_retries=3,
            retry_on_exceptions=(),  # it would retry inside our `with` block when a body breaks off
        ) as answer,
    ):
        hf_raise_for_status(answer)
        _check_partial(answer, file, start, length)
        content = _read_at_most(answer, length + 1)
    if len(content) != length:
        raise ModelError(f"{len(content)} bytes of {file} arrived where {length} were requested: start again")
    return content


def _request(repo: str, name: str) -> HubRequest:
    return HubRequest(repo=repo, object=name, otherwise="or copy what this command makes from another machine")


def _check_partial(answer: httpx2.Response, file: RemoteFile, start: int, length: int) -> None:
    """Raises ModelError unless the answer is that range, or the whole file where all of it is requested."""
    if answer.status_code == HTTPStatus.OK and (start, length) == (0, file.size):
        return
    if answer.status_code != HTTPStatus.PARTIAL_CONTENT:
        raise ModelError(
            f"{answer.url.host} ignores HTTP Range and would send all {file.size} bytes of {file}: nothing was read; "
            "set HF_ENDPOINT to a hub or mirror that serves ranges"
        )
    expected = f"bytes {start}-{start + length - 1}/{file.size}"
    if (given := answer.headers.get("Content-Range")) != expected:
        raise ModelError(f"{answer.url.host} sent {given} of {file} where {expected} was requested: start again")


def _read_at_most(answer: httpx2.Response, limit: int) -> bytes:
    content = bytearray()
    for part in answer.iter_raw():
        content += part
        if len(content) >= limit:
            break
    return bytes(content[:limit])
