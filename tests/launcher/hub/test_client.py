"""Whatever stands between us and a hub is a sentence that says what to do, with the right exit code."""

import json
import ssl
import sys
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import close_session, constants
from huggingface_hub import errors as hub_errors

from launcher.errors import ConfigError, HubUnreachable, LauncherError, ModelError, NotRunning
from launcher.hub.client import PROXIES, HubRequest, translate, translate_errors
from launcher.hub.listing import offers
from launcher.settings.family import HubFile
from tests.support.sources.hub import Hub, running_hub
from tests.support.sources.socks import socks_proxy

HUB_REQUEST = HubRequest(repo="owner/models", object="m.gguf", verb="fetch")
SOURCE = HubFile("owner/models", "m-{quantization}.gguf")
REQUEST = httpx2.Request("GET", "https://hub/owner/models")


def answered(kind: type[hub_errors.HfHubHTTPError], status: int) -> Exception:
    return kind("words of the hub", response=httpx2.Response(status, request=REQUEST))


RAISED: list[tuple[Exception, int, str]] = [
    (answered(hub_errors.RepositoryNotFoundError, 401), 66, "set HF_TOKEN"),
    (answered(hub_errors.GatedRepoError, 403), 66, "accept the licence"),
    (answered(hub_errors.RemoteEntryNotFoundError, 404), 66, "has no file m.gguf"),
    (answered(hub_errors.RevisionNotFoundError, 404), 66, "HTTP 404"),
    (answered(hub_errors.DisabledRepoError, 403), 66, "HTTP 403"),
    (answered(hub_errors.HfHubHTTPError, 407), 75, "HTTP 407"),
    (answered(hub_errors.HfHubHTTPError, 429), 75, "try again later"),
    (answered(hub_errors.HfHubHTTPError, 503), 75, "try again later"),
    (hub_errors.HFValidationError("Repo id must be"), 66, '"owner/models" is no name of a repository'),
    (hub_errors.OfflineModeIsEnabled("Cannot reach"), 66, "unset HF_HUB_OFFLINE"),
    (httpx2.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed"), 75, "SSL_CERT_FILE"),
    (httpx2.ConnectError("[Errno -2] Name or service not known"), 75, "check the network"),
    (httpx2.ReadTimeout(""), 75, "ReadTimeout"),
    (httpx2.TooManyRedirects("Exceeded"), 75, "cannot be reached"),
    (httpx2.DecodingError("not a gzip"), 75, "cannot be reached"),
    (httpx2.InvalidURL("Invalid port"), 78, "HF_ENDPOINT"),
    (httpx2.UnsupportedProtocol("has an unsupported protocol 'file://'"), 75, "cannot be reached"),  # a redirect's
    (httpx2.LocalProtocolError("Illegal header value b'Bearer hf_secret'"), 78, "HF_TOKEN"),
    (UnicodeEncodeError("ascii", "hf_secret\xe9", 0, 1, "ordinal not in range"), 78, "HF_TOKEN"),
    (UnicodeError("label empty or too long"), 78, "HF_ENDPOINT"),
    (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), 75, "requires a login"),
    (json.JSONDecodeError("Expecting value", "<html>", 0), 75, "requires a login"),
    (KeyError("siblings"), 75, "does not answer as a hub"),
    (RecursionError("maximum recursion depth"), 75, "does not answer as a hub"),
    (hub_errors.FileMetadataError("Distant resource"), 75, "does not answer as a hub"),
    (ssl.SSLError("wrong version number"), 75, "does not answer as a hub"),
    (hub_errors.LocalEntryNotFoundError("offline"), 75, "does not answer as a hub"),
]


def test_whatever_the_client_raises_is_ours_with_its_code_and_next_step() -> None:
    for raised, code, words in RAISED:
        error = translate(raised, HUB_REQUEST)
        assert error.exit_code == code, raised
        assert words in str(error)
        assert "\n" not in str(error)
        assert "hf_secret" not in str(error)


@pytest.mark.parametrize("endpoint", ["hub.example", "ftp://hub.example"])
def test_an_endpoint_that_is_no_address_of_the_web_is_named(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    error = translate(httpx2.UnsupportedProtocol("missing an 'http://'"), HUB_REQUEST)
    assert (error.exit_code, f"HF_ENDPOINT={endpoint}" in str(error)) == (78, True)


@pytest.mark.parametrize("passed", [CancelledError(), NotRunning("ours")], ids=["stopped", "ours"])
def test_our_own_errors_pass_unchanged(passed: Exception) -> None:
    with pytest.raises(type(passed)) as raised, translate_errors(HUB_REQUEST):
        raise passed
    assert raised.value is passed


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with a file, in an environment without proxies, certificates and a client's connection."""
    for name in (*PROXIES, *map(str.upper, PROXIES), "NO_PROXY", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    with running_hub() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)  # read once, at import
        hub.add("owner/models", "m-Q4_K_M.gguf", b"content")
        close_session()
        yield hub
        close_session()


def refused() -> LauncherError:
    with pytest.raises((ModelError, ConfigError)) as raised:
        offers("code", SOURCE)
    return raised.value


@pytest.mark.parametrize(
    "value", ["socks4://127.0.0.1:9", "ftp://proxy", "http://[::1", "http://proxy:port", "socks9h://user:secret@h:1"]
)
@pytest.mark.parametrize("name", ["ALL_PROXY", "https_proxy"])
def test_an_invalid_proxy_is_named_by_its_variable(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    error = refused()
    assert error.exit_code == 78
    assert f"the proxy in {name}" in str(error)
    assert "secret" not in str(error)


@pytest.mark.parametrize("value", ["http://user:secret@127.0.0.1:9", "socks5://127.0.0.1:9", "127.0.0.1:9"])
def test_a_proxy_that_does_not_answer_is_named_by_its_variable(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("HTTP_PROXY", value)
    error = refused()
    assert isinstance(error, HubUnreachable)
    assert "cannot be reached through the proxy in HTTP_PROXY" in str(error)
    assert "secret" not in str(error)


def test_a_hub_is_reached_through_socks(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with socks_proxy() as port:
        monkeypatch.setenv("ALL_PROXY", f"socks5://127.0.0.1:{port}")
        assert [one.quantization for one in offers("code", SOURCE)] == ["Q4_K_M"]
        close_session()


def test_without_the_package_for_socks_it_says_which(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    assert "run `pip install socksio`, or unset ALL_PROXY" in str(refused())


def test_certificates_that_are_not_there_are_named(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    error = refused()
    assert error.exit_code == 78
    assert "SSL_CERT_FILE" in str(error)


@pytest.mark.parametrize(
    "endpoint",
    ["hub.example", "", "http://", "ftp://hub", "http://a..b", "http://h:99999", "http://" + "x" * 70 + ".de"],
)
def test_an_endpoint_that_is_no_address_is_named(hub: Hub, monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    error = refused()
    assert error.exit_code in (75, 78)
    assert endpoint in str(error)
