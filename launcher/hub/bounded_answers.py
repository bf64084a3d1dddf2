"""Bounds what a hub's answer costs: no answer is compressed, and every answer but a file's content is short.

A hub may be hostile: a megabyte can be inflated to a gigabyte, and an answer need not end.
"""

from collections.abc import Iterator
from http import HTTPStatus

import httpx2
from huggingface_hub import constants

from launcher.errors import HubUnreachable
from proxy.contract.log_lines import printable

MAX_ANSWER_BYTES = 2**25  # the list of a repository of thousands of files has some megabytes
_BOUNDED = "trillama.bounded"
_IDENTITY = "identity"


def bound_answers(client: httpx2.Client) -> None:
    """Bound all later answers to this client. A request with an `Accept-Encoding: identity` of its own reads a file.

    What exceeds the bound raises HubUnreachable where it is read.
    """
    hooks = client.event_hooks
    if _check not in hooks["response"]:
        client.event_hooks = {"request": [*hooks["request"], _ask], "response": [*hooks["response"], _check]}


def _ask(request: httpx2.Request) -> None:
    if request.headers.get("Accept-Encoding") != _IDENTITY:
        request.headers["Accept-Encoding"] = _IDENTITY
        request.extensions = {**request.extensions, _BOUNDED: True}


def _check(response: httpx2.Response) -> None:
    if (encoding := response.headers.get("Content-Encoding", _IDENTITY)).strip().lower() != _IDENTITY:
        raise HubUnreachable(
            f"{constants.ENDPOINT} sends an answer in {printable(encoding[:40])}, which was not asked for: check "
            "HF_ENDPOINT, and whether this network requires a login"
        )
    is_file = response.status_code in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT)
    if _BOUNDED in response.request.extensions or not is_file:
        response.stream = _Bounded(response.stream)


class _Bounded(httpx2.SyncByteStream):
    def __init__(self, stream: object) -> None:
        if not isinstance(stream, httpx2.SyncByteStream):
            raise TypeError(f"{stream!r} is not the stream of a synchronous client")
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        received = 0
        for part in self._stream:
            received += len(part)
            if received > MAX_ANSWER_BYTES:
                raise HubUnreachable(
                    f"{constants.ENDPOINT} answers with more than {MAX_ANSWER_BYTES} bytes where a short answer is "
                    "expected: check HF_ENDPOINT"
                )
            yield part

    def close(self) -> None:
        self._stream.close()
