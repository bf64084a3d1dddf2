"""PDF files, written by hand: good ones, and ones that no reader should trust."""

import zlib
from collections.abc import Sequence


def pdf(
    *pages: bytes, size: tuple[float, float] = (595, 842), extra: Sequence[bytes] = (), trailer: bytes = b""
) -> bytes:
    """A PDF with those pages, each a stream of drawing operators; `extra` are objects with the numbers from 3 on."""
    first = 3 + len(extra)
    kids = b" ".join(b"%d 0 R" % (first + 2 * number) for number in range(len(pages)))
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[%b]/Count %d>>" % (kids, len(pages)),
        *extra,
    ]
    for number, content in enumerate(pages):
        box = b"[0 0 %g %g]" % size
        image = b"/Resources<</XObject<</I 3 0 R>>>>" if extra else b""
        contents = first + 2 * number + 1
        objects.append(b"<</Type/Page/Parent 2 0 R/MediaBox%b%b/Contents %d 0 R>>" % (box, image, contents))
        objects.append(stream(b"", content))
    return _file(objects, trailer)


def filled(red: float, green: float, blue: float) -> bytes:
    """The content of a page with a square of that colour."""
    return b"%g %g %g rg 100 200 300 400 re f" % (red, green, blue)


def stream(entries: bytes, content: bytes) -> bytes:
    """An object with compressed content."""
    packed = zlib.compress(content, 9)
    return b"<<%b/Filter/FlateDecode/Length %d>>stream\n%b\nendstream" % (entries, len(packed), packed)


def bomb(side: int) -> bytes:
    """A page whose image says that it has so many pixels a side."""
    image = b"/Type/XObject/Subtype/Image/Width %d/Height %d/ColorSpace/DeviceRGB/BitsPerComponent 8" % (side, side)
    return pdf(b"595 0 0 842 0 0 cm /I Do", extra=[stream(image, b"\x80" * 10_000_000)])


def slow(repeats: int) -> bytes:
    """A page that draws so many large squares through each other: small as a file, and minutes of work."""
    return pdf(b"0.5 0 0 0.5 10 10 cm /P gs " + b"0 0 595 842 re 10 10 500 800 re f* " * repeats)


ENCRYPTED = b"/Encrypt<</Filter/Standard/V 1/R 2/Length 40/P -4/O<%b>/U<%b>>>/ID[<00><00>]" % (b"11" * 32, b"22" * 32)


def _file(objects: Sequence[bytes], trailer: bytes) -> bytes:
    parts, places = [b"%PDF-1.7\n"], list[int]()
    for number, one in enumerate(objects, 1):
        places.append(sum(map(len, parts)))
        parts.append(b"%d 0 obj\n%b\nendobj\n" % (number, one))
    start = sum(map(len, parts))
    rows = b"".join(b"%010d 00000 n \n" % place for place in places)
    parts.append(b"xref\n0 %d\n0000000000 65535 f \n%b" % (len(objects) + 1, rows))
    parts.append(b"trailer<</Size %d/Root 1 0 R%b>>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, trailer, start))
    return b"".join(parts)
