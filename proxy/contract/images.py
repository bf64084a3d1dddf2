"""The settings of images: which backends take them, and within which limits clients may send them."""

import ipaddress
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from proxy.contract.family import Positive, Strict
from proxy.contract.settings_file import LocalPath

IMAGE_TOKENS = 768  # of the largest image: a tile is a token
TILE_PIXELS = 28 * 28  # of a tile
PDF_PAGES = 32  # at most; each is an image
AROUND_IMAGE = 11  # tokens of the original's prompt around an image


def _host_or_network(text: str) -> str:
    if "/" not in text:
        if not re.fullmatch(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*", text):
            raise ValueError(f"{text!r:.80} is neither a host's name in lower case nor a network such as 10.0.0.0/8")
        return text
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        raise ValueError(f"{text!r:.80} is not a network such as 10.0.0.0/8: {error}") from error


HostOrNetwork = Annotated[str, AfterValidator(_host_or_network)]
PortNumber = Annotated[int, Field(ge=1, le=65535)]


class BackendImages(Strict):
    """How a llama-server takes images: it was started with `--mmproj` and `--pool-media`."""

    marker: Annotated[str, Field(min_length=1)]  # its LLAMA_MEDIA_MARKER (written by the launcher)
    # its `--mmproj`: with it image vectors have a vector-space id
    mmproj_file: LocalPath | None = None


class ImageOptions(Strict):
    """What clients may send as images, where the models take images."""

    # which addresses the server fetches images from: `public`, none (`off`), or a list of hosts and networks, which may
    # be private
    urls: Literal["public", "off"] | tuple[HostOrNetwork, ...] = "public"
    ports: tuple[PortNumber, ...] = ()  # ports that images are fetched from, beside 80 and 443
    fetch_timeout_s: Annotated[float, Field(gt=0)] = 8.0  # for one image, with all its redirects
    max_bytes: Positive = 8 * 10**6  # of one image, as the file that it is
    max_total_bytes: Positive = 64 * 10**6  # of all images of one request, as files
    max_pixels: Positive = 100_000_000  # of one image
