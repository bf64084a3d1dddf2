"""What a client may send as an image: the URL of a file, a data URI, or the file's bytes as base64. Pure."""

import re

import pybase64

from proxy.faults import BadImage
from proxy.quoting import quoted
from proxy.types import ImageSource

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):", re.IGNORECASE)
_DATA = re.compile(r"\s*data:[^,]*;base64,", re.IGNORECASE)
_SPACE = b" \t\r\n"
_MAX_HEAD = 256  # characters of a data URI before its data


def image_url(source: ImageSource) -> str | None:
    """The http or https URL that the source is; None if it is the file itself. Raises BadImage for another scheme."""
    if isinstance(source.given, bytes):
        return None
    found = _SCHEME.match(source.given[:_MAX_HEAD].lstrip())
    if not found or found[1].lower() == "data":
        return None
    if found[1].lower() not in {"http", "https"}:
        raise BadImage(f"is a URL of {quoted(found[1])}: send http, https, a data URI or base64")
    return source.given.strip()


def file_of(source: ImageSource, max_bytes: int) -> bytes:
    """The file that the source has in it. Raises BadImage for what is not base64, or for more than `max_bytes`."""
    if isinstance(source.given, bytes):
        check_file_size(len(source.given), max_bytes)
        return source.given
    head = _DATA.match(source.given[:_MAX_HEAD])
    if not head and source.given[:_MAX_HEAD].lstrip()[:5].lower() == "data:":
        raise BadImage("is a data URI that is not base64: send `data:image/png;base64,…`")
    try:
        written = source.given[head.end() if head else 0 :].encode("ascii").translate(None, _SPACE)
        check_file_size(len(written) * 3 // 4 - 2, max_bytes)  # up to two characters of padding stand for no byte
        file = pybase64.b64decode(written, validate=True)
    except ValueError as error:
        raise BadImage("is neither a URL nor a data URI nor valid base64") from error
    if not file:
        raise BadImage("is empty")
    check_file_size(len(file), max_bytes)
    return file


def check_file_size(size: int, max_bytes: int) -> None:
    """Raises BadImage."""
    if size > max_bytes:
        raise BadImage(f"is a file of more than {max_bytes} bytes, the most that this server takes")
