"""An image is fetched from an allowed host: few at a time, bounded, without anything of the operator's, or refused."""

import asyncio
from ipaddress import ip_address

import pytest

from proxy.contract.images import ImageOptions
from proxy.faults import BadImage
from proxy.images.fetching import FETCHES, FETCHES_PER_HOST, system_lookup
from proxy.images.loading import image_loading
from proxy.types import ImageSource
from tests.proxy.images.fetching.conftest import PICTURE, STARTS, Target, fetched, fetcher


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
