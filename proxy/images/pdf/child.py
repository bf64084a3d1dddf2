"""Renders a PDF from stdin to stdout: a program of its own, which imports nothing of ours.

For each page: its width and height, then its pixels as RGB. Exit code 3: stderr says why. Its limits, on memory,
time and files, are set before it reads a byte of the PDF; fonts that are not in the file are PDFium's own.
"""

import math
import os
import resource
import struct
import sys
from typing import NoReturn

import pypdfium2 as pdfium

_REFUSED = 3
_HEAD = struct.Struct(">II")
_MEMORY_BYTES = 2**30  # of address space; a page and PDFium itself take a tenth
_CPU_S = 20


def main(max_pages: int, page_pixels: int) -> None:
    _confine()
    file = sys.stdin.buffer.read()
    try:
        document = pdfium.PdfDocument(file)
    except pdfium.PdfiumError as error:
        _refuse("is an encrypted PDF" if "password" in str(error).lower() else "is not a PDF, or a broken one")
    count = len(document)
    if not 1 <= count <= max_pages:
        _refuse(f"is a PDF of {count} pages: from 1 to {max_pages} are served")
    for number in range(count):
        try:
            _write(document[number], page_pixels)
        except (pdfium.PdfiumError, ValueError, ZeroDivisionError, MemoryError):
            _refuse(f"is a PDF whose page {number + 1} cannot be rendered")


def _confine() -> None:
    """No more memory, time or files than these, and no file, socket or process from here on."""
    os.nice(10)
    for kind, most in (
        (resource.RLIMIT_AS, _MEMORY_BYTES),
        (resource.RLIMIT_CPU, _CPU_S),
        (resource.RLIMIT_NOFILE, 3),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
    ):
        allowed = resource.getrlimit(kind)[1]
        lower = most if allowed == resource.RLIM_INFINITY else min(most, allowed)
        resource.setrlimit(kind, (lower, lower))


def _write(page: pdfium.PdfPage, pixels: int) -> None:
    """The page in about so many pixels, whatever its size on paper."""
    width, height = page.get_size()
    bitmap = page.render(scale=math.sqrt(pixels / (width * height)), rev_byteorder=True)
    rows = memoryview(bitmap.buffer).cast("B")
    line = bitmap.width * 3
    starts = range(0, bitmap.height * bitmap.stride, bitmap.stride)
    sys.stdout.buffer.write(_HEAD.pack(bitmap.width, bitmap.height))
    sys.stdout.buffer.write(b"".join(rows[start : start + line] for start in starts))
    sys.stdout.buffer.flush()
    bitmap.close()
    page.close()


def _refuse(reason: str) -> NoReturn:
    sys.stderr.write(reason)
    sys.exit(_REFUSED)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
