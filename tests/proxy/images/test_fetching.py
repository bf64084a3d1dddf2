"""Images are fetched from public addresses alone, however a URL, a name or a redirect hides another one."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address

import pytest
from aiohttp import web

from proxy.contract.images import ImageOptions
from proxy.faults import BadImage
from proxy.images.addresses import is_public
from proxy.images.fetching import FETCHES, FETCHES_PER_HOST, Fetcher, fetching, system_lookup
from proxy.images.loading import image_loading
from proxy.types import ImageSource
from tests.support.pictures import png

PICTURE = png()


ANSWERED: Mapping[str, Callable[[], web.Response]] = {
    "/404": lambda: web.Response(status=404, text="secret of the host"),
    "/gzip": lambda: web.Response(body=PICTURE, headers={"Content-Encoding": "gzip"}),
    "/nowhere": lambda: web.Response(status=302),
    "/x.png": lambda: web.Response(body=PICTURE, headers={"Set-Cookie": "a=b"}),
}


@dataclass(slots=True)
class Target:
    """A server on loopback that counts what reaches it, and answers by path."""

    port: int = 0
    requests: list[web.Request] = field(default_factory=list)
    now: int = 0
    most: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def url(self, host: str, path: str = "/x.png") -> str:
        return f"http://{host}:{self.port}{path}"

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        match request.path.split("/"):
            case ["", "to", ""]:
                return web.Response(status=302, headers={"Location": request.query["at"]})
            case ["", "again", number]:
                return web.Response(status=307, headers={"Location": f"/again/{int(number) + 1}"})
            case ["", "slow"]:
                return await self._slow()
            case ["", "endless"]:
                return await self._endless(request)
        return ANSWERED.get(request.path, web.Response)()

    async def _slow(self) -> web.StreamResponse:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self.gate.wait()
        finally:
            self.now -= 1
        return web.Response(body=PICTURE)

    async def _endless(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"\0" * 65536)


@pytest.fixture
async def target() -> AsyncIterator[Target]:
    made, app = Target(), web.Application()
    app.router.add_route("*", "/{path:.*}", made.answer)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.port = runner.addresses[0][1]
    try:
        yield made
    finally:
        made.gate.set()
        await runner.cleanup()


@asynccontextmanager
async def fetcher(
    target: Target, names: Mapping[str, Sequence[str]] | None = None, **options: object
) -> AsyncIterator[Fetcher]:
    """A fetcher that resolves these names: each time to the next of the addresses, and then to the last for ever."""
    asked = dict.fromkeys(names or {}, 0)

    async def lookup(host: str, port: int) -> Sequence[str]:
        if names is None or host not in names:
            raise OSError(f"no such name: {host}")
        at = min(asked[host], len(names[host]) - 1)
        asked[host] += 1
        return names[host][at].split()

    settings = ImageOptions.model_validate({"ports": (target.port,), **options})
    async with fetching(settings, lookup) as made:
        yield made


async def fetched(fetcher: Fetcher, url: str) -> bytes:
    async with fetcher.fetched(url) as file:
        return file


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


STARTS = {"start.test": ["127.0.0.1"], "other.test": ["127.0.0.1"]}


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


async def test_allowed_hosts_are_fetched_with_redirects_and_without_anything_of_the_operators(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    async with fetcher(target, STARTS, urls=("start.test",)) as one:
        assert await fetched(one, target.url("START.test", "/x.png?key=secret")) == PICTURE
        assert await fetched(one, target.url("start.test", "/to/?at=/x.png")) == PICTURE
        with pytest.raises(BadImage, match="more than 3 redirects"):
            await fetched(one, target.url("start.test", "/again/1"))
    for request in target.requests:
        assert not {"Cookie", "Authorization", "Referer"} & request.headers.keys()
        assert request.headers["User-Agent"] == "trillama"
        assert request.headers["Accept-Encoding"] == "identity"


async def test_allowed_networks_are_fetched_from_and_no_others(target: Target) -> None:
    async with fetcher(target, STARTS, urls=("127.0.0.0/8",)) as one:
        assert await fetched(one, target.url("127.0.0.1")) == PICTURE
        assert await fetched(one, target.url("other.test")) == PICTURE
        with pytest.raises(BadImage, match=r"no address that this server fetches from \(`urls` under \[proxy.images\]"):
            await fetched(one, target.url("10.0.0.1"))


async def test_this_system_resolves_names() -> None:
    with system_lookup() as lookup:
        assert {ip_address(address).is_loopback for address in await lookup("localhost", 80)} == {True}
        with pytest.raises(OSError, match="not a name"):
            await lookup("a" * 64 + ".test", 80)


async def test_a_url_and_its_file_are_the_same_picture(target: Target) -> None:
    options = ImageOptions(urls=("127.0.0.0/8",), ports=(target.port,), max_total_bytes=3 * len(PICTURE))
    async with image_loading(options) as loader:
        budget = loader.budget()
        async with (
            loader.picture(ImageSource(target.url("127.0.0.1")), budget) as fetched_picture,
            loader.picture(ImageSource(PICTURE), budget) as picture,
        ):
            assert picture == fetched_picture
        assert await loader.tokens(ImageSource(target.url("127.0.0.1")), budget) == picture.tokens
        with pytest.raises(BadImage, match="bytes together"):
            await loader.tokens(ImageSource(target.url("127.0.0.1")), budget)


async def test_off_means_off(target: Target) -> None:
    async with fetcher(target, STARTS, urls="off") as one:
        with pytest.raises(BadImage, match="this server fetches none"):
            await fetched(one, target.url("start.test"))


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/404", "could not be fetched: start.test answered 404"),
        ("/gzip", "sent it compressed"),
        ("/nowhere", "could not be fetched"),
        ("/endless", "more than 100000 bytes"),
        ("/slow", "within 0.3 s"),
    ],
)
async def test_an_answer_that_is_no_image_says_the_host_and_nothing_that_it_sent(
    target: Target, path: str, said: str
) -> None:
    async with fetcher(target, STARTS, urls=("start.test",), max_bytes=100_000, fetch_timeout_s=0.3) as one:
        with pytest.raises(BadImage, match=said) as refused:
            await fetched(one, target.url("start.test", path + "?token=secret"))
    assert "secret" not in str(refused.value)


async def test_names_of_this_network_are_not_told_from_names_that_do_not_exist(target: Target) -> None:
    said = set()
    async with fetcher(target, NAMES) as one:
        for host in ("private.test", "nowhere.test"):
            with pytest.raises(BadImage) as refused:
                await fetched(one, target.url(host))
            said.add(str(refused.value).replace(host, "NAME"))
    assert len(said) == 1


async def test_few_are_fetched_at_a_time_and_fewer_from_one_host(target: Target) -> None:
    hosts = {f"h{number}.test": ["127.0.0.1"] for number in range(4)}
    async with fetcher(target, hosts, urls=tuple(hosts), fetch_timeout_s=60) as one, asyncio.TaskGroup() as tasks:
        same = [tasks.create_task(fetched(one, target.url("h0.test", "/slow"))) for _ in range(6)]
        async with asyncio.timeout(30):
            while target.now < FETCHES_PER_HOST:
                await asyncio.sleep(0)
        others = [tasks.create_task(fetched(one, target.url(f"h{n % 3 + 1}.test", "/slow"))) for n in range(9)]
        async with asyncio.timeout(30):
            while target.now < FETCHES:
                await asyncio.sleep(0)
        target.gate.set()
    assert {task.result() for task in [*same, *others]} == {PICTURE}
    assert target.most == FETCHES


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
