"""A server without keys serves every client except browsers on another site's page."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.edge.origins import Origins, host_of
from proxy.errors import BadRequest, ForeignHost, ForeignOrigin

OURS = Origins(hosts=frozenset({"gpu1.example.com"}), pages=frozenset({"https://app.example"}), needs_key=False)


@pytest.mark.parametrize(
    ("header", "host"),
    [
        ("127.0.0.1:8080", "127.0.0.1"),
        ("[::1]:8080", "::1"),
        ("[fe80::1%eth0]", "fe80::1"),
        ("Trillama:8080", "trillama"),
        ("my_service", "my_service"),
        ("localhost.", "localhost"),
        ("gpu1.Example.com:", "gpu1.example.com"),
    ],
)
def test_the_host_is_read(header: str, host: str) -> None:
    assert host_of(header) == host


@pytest.mark.parametrize("header", ["", ":80", "[::1", "a b", 'a"><b>', "a:b", "a:123456", "é", "\udcff", "a/b", "."])
def test_a_malformed_host_is_a_bad_request_with_or_without_keys(header: str) -> None:
    for locked in (True, False):
        with pytest.raises(BadRequest, match="neither a name nor an address") as raised:
            Origins(hosts=frozenset(), pages=frozenset(), needs_key=locked).check("GET", header, {})
        assert raised.value.status == 400


@given(st.text())
def test_any_text_is_a_host_or_none(header: str) -> None:
    host = host_of(header)
    assert host is None or not set(host) & set(" /\\<>\"'$`;&|(){}")


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "192.168.1.5:8080", "[::1]:8080", "127.1", "localhost", "trillama:8080", "GPU1"),
        *("host.docker.internal", "nas.local", "app.localhost", "gpu.lan", "box.home.arpa", "gpu1.example.com"),
        "trillama.default.svc.cluster.local",
    ],
)
def test_the_names_of_private_networks_and_our_own_are_served(host: str) -> None:
    OURS.check("POST", host, {})


@pytest.mark.parametrize(
    "host", ["evil.example", "gpu1.example.com.evil.example", "127.0.0.1.evil.example", "a.locals"]
)
def test_a_name_that_an_attacker_can_register_is_refused(host: str) -> None:
    with pytest.raises(ForeignHost, match=host):
        OURS.check("GET", host, {})
    Origins(hosts=frozenset(), pages=frozenset(), needs_key=True).check("GET", host, {})
    Origins(hosts=frozenset({"*"}), pages=frozenset(), needs_key=False).check("GET", host, {})


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://127.0.0.1:8080"},
        {"Origin": "https://app.example"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
    ],
)
def test_clients_our_own_page_and_configured_pages_are_served(headers: dict[str, str]) -> None:
    OURS.check("POST", "127.0.0.1:8080", headers)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:3000"},
        {"Origin": "http://127.0.0.1"},
        {"Origin": "https://app.example.evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_other_pages_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(ForeignOrigin):
        OURS.check("POST", "127.0.0.1:8080", headers)
    Origins(hosts=frozenset(), pages=frozenset(), needs_key=True).check("POST", "127.0.0.1:8080", headers)


def test_a_link_from_another_page_may_be_followed() -> None:
    OURS.check("GET", "127.0.0.1:8080", {"Sec-Fetch-Site": "cross-site"})


@pytest.mark.parametrize(
    ("origin", "host"),
    [("http://gpu", "gpu:80"), ("https://gpu", "gpu:443"), ("https://gpu", "gpu"), ("http://GPU", "gpu")],
)
def test_a_default_port_may_be_written_or_not(origin: str, host: str) -> None:
    OURS.check("POST", host, {"Origin": origin})
