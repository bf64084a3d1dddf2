"""Images: through the proxy, and from the same llama-server asked directly with pixels that are right already."""

import base64
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.rows import Found, Row, ratio
from bench.servers.contenders import Host
from launcher.images.prompt import image_input, media_marker
from proxy.images import decoding
from proxy.images.sizes import PixelSize, target_size
from tests.support.requests.pictures import noise_image, written_image
from tests.support.servers.media import BACKEND, serving_images
from tests.support.servers.stack import Stack

_ROUNDS, _PICTURES, _WIDTH, _HEIGHT = 4, 4, 1000, 700
_GOAL = 0.8


@dataclass(frozen=True, slots=True)
class _Photo:
    """A JPEG as a client has it, and the same as the engine must get it."""

    item: dict[str, str]
    prompt: dict[str, object]


async def beside_the_engine(_: Host, seed: int) -> Found:
    """Photographs in one request, and one after the other directly, in turn. Each is new, so nothing is cached."""
    photos = _photos(seed)
    through, directly = list[float](), list[float]()
    with tempfile.TemporaryDirectory() as folder:
        async with serving_images(Path(folder), {"images": {"urls": "off"}}) as served:
            for number in range(_ROUNDS + 1):
                round_of = [next(photos) for _ in range(_PICTURES)]
                ours, theirs = await _through(served, round_of), await _directly(served, round_of)
                if number:  # the first is to warm up
                    through.append(_PICTURES / ours)
                    directly.append(_PICTURES / theirs)
    middle, least, most = ratio(through, directly)
    row = Row(
        measure="images/s, JPEG of 1000 x 700 in one request, vs pixels of the right size, directly",
        goal=f"≥ {_GOAL:.2f}",
        seen=f"{middle:.2f} ({least:.2f} to {most:.2f})",
        met=middle >= _GOAL,
    )
    figures = {
        name: {"images_per_s": float(np.median(rates))} for name, rates in (("ours", through), ("directly", directly))
    }
    model = "an encoder of 4 layers x 64, which costs next to nothing beside the real one's 32 x 1280"
    return Found(model=model, rows=(row,), figures=figures)


def _photos(seed: int) -> Iterator[_Photo]:
    while True:
        file = written_image(noise_image(seed, _WIDTH, _HEIGHT), "JPEG", quality=90)
        pixels = decoding.pixels(decoding.opened(file, 10**6), target_size(PixelSize(_WIDTH, _HEIGHT)))
        yield _Photo({"image": base64.b64encode(file).decode()}, image_input(pixels, media_marker()))
        seed += 1


async def _through(served: Stack, photos: Sequence[_Photo]) -> float:
    body = {"input": [photo.item for photo in photos], "task": "retrieval.passage", "embedding_type": "base64"}
    started = time.perf_counter()
    answer = await served.post(body)
    if answer.status != 200:
        raise RuntimeError(f"the proxy answered {answer.status}: {answer.body[:200]!r}")
    return time.perf_counter() - started


async def _directly(served: Stack, photos: Sequence[_Photo]) -> float:
    started = time.perf_counter()
    for photo in photos:
        await served.engines[BACKEND].rows([photo.prompt])
    return time.perf_counter() - started
