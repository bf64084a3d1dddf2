"""Images are fetched from public addresses alone, however a URL, a name or a redirect hides another one."""

from ipaddress import ip_address

import pytest

from proxy.faults import BadImage
from proxy.images.addresses import is_public
from tests.proxy.images.fetching.conftest import PICTURE, STARTS, Target, fetched, fetcher

LOOPBACK_HOSTS = [
    "127.0.0.1",
    "127.1",
    "127.0.0.1.",
    "0177.0.0.1",
    "0x7f.1",
    "0x7f000001",
    "2130706433",
    "017700000001",
    "0",
    "0.0.0.0",
    "localhost",
    "localhost.",
    "LOCALHOST",
    "127.0.0.1.nip.test",
    "\uff11\uff12\uff17.0.0.1",  # digits and dots that IDNA turns into ASCII
    "127\u30020\u30020\u30021",
    "\u2460\u2461\u2466.0.0.1",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[0:0:0:0:0:ffff:127.0.0.1]",
    "[::127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b:1::127.0.0.1]",
    "[2002:7f00:1::]",
    "[2001:0:7f00:1::]",
    "[fe80::1%25lo]",
    "[fe80::1%lo]",
    "10.0.0.1",
    "169.254.169.254",
    "[fd00:ec2::254]",
    "100.100.100.200",
    "168.63.129.16",
    "192.168.1.1",
    "metadata.google.internal",
]
NAMES = {
    "localhost": ["127.0.0.1"],
    "127.0.0.1.nip.test": ["127.0.0.1"],
    "metadata.google.internal": ["169.254.169.254"],
    "private.test": ["127.0.0.1"],
    "mixed.test": ["8.8.8.8 127.0.0.1"],
    "mapped.test": ["::ffff:127.0.0.1"],
    "v6.test": ["::1"],
    "nat64.test": ["64:ff9b::7f00:1"],
}


@pytest.mark.parametrize("host", dict.fromkeys([*LOOPBACK_HOSTS, *NAMES]))
async def test_no_private_address_is_reached_however_it_is_written(target: Target, host: str) -> None:
    async with fetcher(target, NAMES) as one:
        with pytest.raises(BadImage):
            await fetched(one, target.url(host))
    assert not target.requests


@pytest.mark.parametrize(
    "url",
    [
        "http://user@8.8.8.8/x.png",
        "http://user:password@private.test/x.png",
        "http://8.8.8.8:22/x.png",
        "http://127.0.0.1#@8.8.8.8/",
        "http://127.0.0.1\\@8.8.8.8/",
        "ftp://8.8.8.8/x.png",
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "http:///x.png",
        "http://",
        "http://[/x.png",
        "http://a b/x.png",
        "http://8.8.8.8:99999/",
        "http://-/x.png",
        "http://xn--a/x.png",
        "http://\n/x.png",
        "http://" + "a" * 9000,
    ],
)
async def test_other_urls_are_refused_before_any_name_is_resolved(target: Target, url: str) -> None:
    async with fetcher(target) as one:
        with pytest.raises(BadImage):
            await fetched(one, url)
    assert not target.requests


async def test_a_name_that_changes_its_address_gains_nothing(target: Target) -> None:
    names = {"rebinding.test": ["127.0.0.2", "127.0.0.1"]}  # the first is allowed, and nobody listens there
    async with fetcher(target, names, urls=("127.0.0.2/32",)) as one:
        for _ in range(3):
            with pytest.raises(BadImage):
                await fetched(one, target.url("rebinding.test"))
    assert not target.requests


@pytest.mark.parametrize(
    "at",
    [
        "http://127.0.0.1:{port}/inside",
        "http://[::ffff:127.0.0.1]:{port}/inside",
        "http://2130706433:{port}/inside",
        "http://other.test:{port}/inside",
        "//other.test:{port}/inside",
        "http://user@start.test:{port}/inside",
        "file:///etc/passwd",
        "http://start.test:1/inside",
        "http://xn--a/inside",
        "http://[",
    ],
)
async def test_each_redirect_is_checked_like_the_first_url(target: Target, at: str) -> None:
    async with fetcher(target, STARTS, urls=("start.test",)) as one:
        with pytest.raises(BadImage):
            await fetched(one, target.url("start.test", f"/to/?at={at.format(port=target.port)}"))
    assert [request.path for request in target.requests] == ["/to/"]


async def test_allowed_networks_are_fetched_from_and_no_others(target: Target) -> None:
    async with fetcher(target, STARTS, urls=("127.0.0.0/8",)) as one:
        assert await fetched(one, target.url("127.0.0.1")) == PICTURE
        assert await fetched(one, target.url("other.test")) == PICTURE
        with pytest.raises(BadImage, match=r"no address that this server fetches from \(`urls` under \[proxy.images\]"):
            await fetched(one, target.url("10.0.0.1"))


async def test_names_of_this_network_are_not_told_from_names_that_do_not_exist(target: Target) -> None:
    said = set()
    async with fetcher(target, NAMES) as one:
        for host in ("private.test", "nowhere.test"):
            with pytest.raises(BadImage) as refused:
                await fetched(one, target.url(host))
            said.add(str(refused.value).replace(host, "NAME"))
    assert len(said) == 1


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("::ffff:8.8.8.8", True),
        ("64:ff9b::808:808", True),
        ("2002:808:808::1", False),  # a tunnel: nobody has images there
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("192.0.0.9", False),
        ("3fff::1", False),
        ("ff0e::1", False),
        ("fec0::1", False),
        ("5f00::1", False),
    ],
)
def test_public_is_what_everybody_means_the_same_by(address: str, public: bool) -> None:
    assert is_public(ip_address(address)) is public
