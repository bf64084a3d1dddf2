"""The images given to `trillama embed`: files, which are read here, and URLs, which the server fetches."""

import base64
from collections.abc import Sequence
from pathlib import Path

from launcher.errors import ArgumentError

_URLS = ("http://", "https://", "data:")
_PDF = b"%PDF-"


def given_images(images: Sequence[str], beside: int = 0) -> list[dict[str, str]]:
    """Each image as an item of the API's `input`, in which so many texts stand `beside` them.

    Raises ArgumentError for what cannot be read, and for a PDF that is not alone.
    """
    items = [_item(image) for image in images]
    pdfs = [image for image, item in zip(images, items, strict=True) if "pdf" in item]
    if pdfs and len(items) + beside > 1:
        raise ArgumentError(f"--image {pdfs[0]}: is a PDF, and each of its pages gets a vector: give it alone")
    return items


def _item(image: str) -> dict[str, str]:
    if image.lower().startswith(_URLS):
        return {"image": image}
    try:
        file = Path(image).read_bytes()
    except OSError as error:
        raise ArgumentError(f"--image {image}: cannot be read: {error.strerror}") from error
    if not file:
        raise ArgumentError(f"--image {image}: is empty")
    return {"pdf" if file.startswith(_PDF) else "image": base64.b64encode(file).decode()}
