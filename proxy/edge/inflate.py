"""Inflates compressed bodies a slice at a time, so that a size limit stops a zip bomb before it is in memory."""

import zlib
from collections.abc import Iterator

ENCODINGS = ("gzip", "deflate")
SLICE_BYTES = 2**20  # bytes that one step produces at most: a few milliseconds
MAX_MEMBERS = 1024  # of one gzip body; each has a cost of its own, so many tiny ones are an attack

GZIP, ZLIB, _RAW = 31, 15, -15  # zlib's wbits


class BadData(Exception):
    """The data is not of the declared encoding; `args[0]` says how."""


class Inflater:
    """One body of that encoding; `deflate` is zlib's format, or raw deflate as some clients send it."""

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding
        self._stream = zlib.decompressobj(GZIP) if encoding == "gzip" else None
        self._members = 0

    def inflate(self, data: bytes) -> Iterator[bytes]:
        """Inflate `data` lazily, in parts of at most SLICE_BYTES. Raises BadData."""
        while data:
            stream = self._open(data)
            try:
                yield stream.decompress(data, SLICE_BYTES)
            except zlib.error as error:
                raise BadData(f"it is not {self._encoding}") from error
            data = stream.unused_data if stream.eof else stream.unconsumed_tail

    def check_end(self) -> None:
        """Raises BadData if the body is truncated."""
        if self._stream is None or not self._stream.eof:
            raise BadData(f"its {self._encoding} ends too early")

    def _open(self, data: bytes) -> "zlib._Decompress":
        """The stream that `data` belongs to; a gzip body may have several in sequence."""
        if self._stream is None:
            self._stream = zlib.decompressobj(ZLIB if data[0] & 0x0F == zlib.DEFLATED else _RAW)
        elif self._stream.eof:
            self._members += 1
            if self._encoding != "gzip" or self._members >= MAX_MEMBERS:
                raise BadData(f"there is data after the end of its {self._encoding}")
            self._stream = zlib.decompressobj(GZIP)
        return self._stream
