"""The boundary to the hub's client: validates what a hub answers, and translates the client's errors for users.

A hub may be a mirror, a captive portal or hostile: a name it sends goes into a path only if it is a digest, and its
text reaches the terminal without control characters. The client honours HF_HOME, HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE
and the usual proxy variables, and does not send the token on when a hub redirects to another host.
"""

import logging
import os
import re
import urllib.request
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx2
from huggingface_hub import constants, get_hf_file_metadata, get_session, hf_hub_url
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
)

from launcher.errors import ConfigError, HubUnreachable, LauncherError, ModelError
from launcher.hub.bounded_answers import bound_answers
from proxy.contract.log_lines import printable

SHA256, GIT_SHA1 = re.compile("[0-9a-f]{64}"), re.compile("[0-9a-f]{40}")
PROXIES = ("http_proxy", "https_proxy", "all_proxy")
WRONG_ADDRESS = (httpx2.InvalidURL, httpx2.UnsupportedProtocol, httpx2.LocalProtocolError, UnicodeError)
LONGEST_REASON = 300  # characters of another program's error


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    """A file of a repository at one commit. `checksum` is the hub's: SHA-256, or git's SHA-1 for a small file.

    `checksum` is None if the hub's ETag is no digest; then the content cannot be verified.
    """

    repo: str
    name: str
    commit: str
    size: int
    checksum: str | None

    def __str__(self) -> str:
        return f"{self.name} of {self.repo}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HubRequest:
    """A request in words, for error messages: to `verb` the `object`; `otherwise` is what else the user can do."""

    repo: str
    object: str
    verb: str = "read"
    otherwise: str = "or start again later"
    missing: str = "see {page}/tree/main and name it as it is there in the family file"


def find(repo: str, name: str, *, commit: str | None = None) -> RemoteFile:
    """The file at that commit, by default the newest. Blocks. Call it inside `translate_errors`."""
    if not _is_inside(name):
        raise ModelError(f"{name!r} is no file of a repository: correct `file` in the family file")
    url = hf_hub_url(repo, name, revision=commit)
    check_client()
    found = get_hf_file_metadata(url)
    if not found.etag or found.size is None or found.size < 0 or not GIT_SHA1.fullmatch(found.commit_hash or ""):
        raise HubUnreachable(
            f"{url}: the answer is not a hub's (no commit, ETag or size): check HF_ENDPOINT, and whether this network "
            "requires a login"
        )
    known = SHA256.fullmatch(found.etag) or GIT_SHA1.fullmatch(found.etag)
    return RemoteFile(
        repo=repo, name=name, commit=str(found.commit_hash), size=found.size, checksum=found.etag if known else None
    )


def check_client() -> None:
    """Raises ConfigError if the environment names a proxy or certificate that the client cannot use."""
    try:
        bound_answers(get_session())
    except Exception as error:  # creating a client may raise ImportError, ValueError, OSError and more
        for name, value in _proxies().items():
            if fault := _fault(value):
                raise ConfigError(
                    f"the hub cannot be asked through the proxy in {name}: {fault}, or unset {name}"
                ) from error
        raise ConfigError(
            f"no connection to the hub can be made ({_reason(error)}): check SSL_CERT_FILE and SSL_CERT_DIR"
        ) from error


@contextmanager
def translate_errors(request: HubRequest) -> Iterator[None]:
    """Turns any error of the hub's client into a LauncherError with the user's next step."""
    try:
        yield
    except (LauncherError, CancelledError):
        raise
    except Exception as error:  # a foreign client reading a foreign answer may raise anything
        raise translate(error, request) from error


def translate(error: Exception, request: HubRequest) -> LauncherError:
    """The LauncherError for an error of the hub's client, with the user's next step."""
    if isinstance(error, (HfHubHTTPError, HFValidationError)):
        return _refused(error, request)
    if isinstance(error, OfflineModeIsEnabled):
        return ModelError(
            f"{request.object} of {request.repo} is not here and HF_HUB_OFFLINE forbids to {request.verb} it: unset "
            f"HF_HUB_OFFLINE for this one command, {request.otherwise}"
        )
    if isinstance(error, WRONG_ADDRESS) and not (isinstance(error, UnicodeDecodeError) or _is_redirected(error)):
        # Not in the client's words, which may quote the token.
        return ConfigError(
            f"no hub can be asked with HF_ENDPOINT={constants.ENDPOINT} and this HF_TOKEN ({type(error).__name__}): "
            "correct them, or unset them"
        )
    if isinstance(error, httpx2.HTTPError):
        return HubUnreachable(_out_of_reach(error, request))
    return HubUnreachable(  # a captive portal's HTML, a mirror's own JSON: the client raises whatever fails first
        f"{constants.ENDPOINT} does not answer as a hub does ({_reason(error)}): check HF_ENDPOINT, and whether this "
        f"network requires a login, {request.otherwise}"
    )


def _is_redirected(error: Exception) -> bool:
    """Whether a hub of a usable address has sent us to one of another kind, such as file://."""
    return isinstance(error, httpx2.UnsupportedProtocol) and constants.ENDPOINT.startswith(("http://", "https://"))


def _is_inside(name: str) -> bool:
    parts = name.split("/")
    return not any(part in ("", ".", "..") for part in parts) and not re.search(r"[\\\x00-\x1f\x7f]", name)


def _refused(error: HfHubHTTPError | HFValidationError, request: HubRequest) -> ModelError:
    """HubUnreachable if the hub may answer later, because it is overloaded or broken; else ModelError."""
    if isinstance(error, HFValidationError):
        return ModelError(f'"{request.repo}" is no name of a repository: set repo = "owner/name" in the family file')
    page, status = f"{constants.ENDPOINT}/{request.repo}", error.response.status_code
    if isinstance(error, RemoteEntryNotFoundError):
        return ModelError(f"{request.repo} has no file {request.object}: {request.missing.format(page=page)}")
    if isinstance(error, RepositoryNotFoundError) or status in (401, 403):
        return ModelError(
            f"the hub does not let us read {request.repo} (HTTP {status}): check the name, accept the licence "
            f"at {page}, and set HF_TOKEN to a token of an account that may read it, {request.otherwise}"
        )
    kind = HubUnreachable if status in (408, 407, 429) or status >= 500 else ModelError
    return kind(
        f"the hub answered HTTP {status} for {request.object} of {request.repo}: try again later, {request.otherwise}"
    )


def _out_of_reach(error: httpx2.HTTPError, request: HubRequest) -> str:
    proxy = _proxy_of(constants.ENDPOINT)
    through = f" through the proxy in {proxy}" if proxy else ""
    check = f"check the network and {proxy}" if proxy else "check the network"
    if "CERTIFICATE" in str(error).upper():
        check = "name your network's own certificates in SSL_CERT_FILE"
    return (
        f"{constants.ENDPOINT} cannot be reached{through} to {request.verb} {request.object} of {request.repo} "
        f"({_reason(error)}): {check} and try again, {request.otherwise}"
    )


def _reason(error: Exception) -> str:
    words = f"{type(error).__name__}: {error}" if not isinstance(error, httpx2.HTTPError) else str(error)
    return " ".join(words.split())[:LONGEST_REASON] or type(error).__name__


def _proxies() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.lower() in PROXIES and value}


def _proxy_of(url: str) -> str | None:
    """The name of the variable whose proxy is used for that address, not its value, which may hold a password."""
    try:
        scheme, host = urlsplit(url).scheme, urlsplit(url).hostname or ""
    except ValueError:
        return None
    if urllib.request.proxy_bypass(host):
        return None
    names = {name.lower(): name for name in _proxies()}
    return names.get(f"{scheme}_proxy") or names.get("all_proxy")


def _fault(proxy: str) -> str | None:
    """Why the client cannot use that proxy, with the fix; not in its own words, which may quote a password."""
    try:
        httpx2.Client(proxy=proxy if "://" in proxy else f"http://{proxy}", trust_env=False).close()
    except ImportError:
        return "SOCKS needs the package socksio, so run `pip install socksio`"
    except Exception:  # noqa: BLE001 # whatever is raised, the client cannot use this proxy
        return "it must be an address like http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT, so correct it"
    return None


class _Printable(logging.Filter):
    """Makes printable what the client logs of a hub's answer, such as X-HF-Warning; it goes to stderr."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args, record.exc_info = printable(record.getMessage())[:LONGEST_REASON], (), None
        return True


for _handler in logging.getLogger("huggingface_hub").handlers:
    _handler.addFilter(_Printable())
