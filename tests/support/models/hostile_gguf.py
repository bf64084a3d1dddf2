"""GGUF files as a stranger may write them, for whoever reads one: each is whole but for one lie."""

import struct
from collections.abc import Mapping
from pathlib import Path

MANY = 2**64 - 1
UINT8, UINT32, INT32, FLOAT32, STRING, ARRAY, UINT64 = 0, 4, 5, 6, 8, 9, 10


def text(content: str | bytes, *, claimed: int | None = None) -> bytes:
    """A GGUF string; `claimed` is the length that it says."""
    raw = content if isinstance(content, bytes) else content.encode()
    return struct.pack("<Q", len(raw) if claimed is None else claimed) + raw


def pair(key: str | bytes, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def array(kind: int, count: int, values: bytes = b"") -> bytes:
    return struct.pack("<IQ", kind, count) + values


def tensor(dimensions: int, sizes: bytes = b"", *, name: bytes = b"w", kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack("<I", dimensions) + sizes + struct.pack("<IQ", kind, offset)


def gguf(*pairs: bytes, tensors: bytes = b"", tensor_count: int = 0, pair_count: int | None = None) -> bytes:
    count = len(pairs) if pair_count is None else pair_count
    return b"GGUF" + struct.pack("<IQQ", 3, tensor_count, count) + b"".join(pairs) + tensors


def texts(*items: str) -> bytes:
    """A GGUF array of strings."""
    return array(STRING, len(items), b"".join(map(text, items)))


ARCHITECTURE = pair("general.architecture", STRING, text("qwen2vl"))

# What is wrong → the file. Both readers must say so, in a moment and in little memory.
LIES: Mapping[str, bytes] = {
    "more keys than bytes": gguf(ARCHITECTURE, pair_count=MANY),
    "a text of 4 GB": gguf(pair("k", STRING, text("", claimed=2**32))),
    "a text of all memory": gguf(pair("k", STRING, text("", claimed=MANY))),
    "a key of all memory": gguf(text("", claimed=MANY)),
    "a key that is no UTF-8": gguf(pair(b"\xff\xfe", UINT8, b"\0")),
    "an array of all memory": gguf(pair("k", ARRAY, array(UINT64, MANY))),
    "texts without end": gguf(pair("k", ARRAY, array(STRING, MANY, bytes(4096)))),
    "texts past the end": gguf(pair("k", ARRAY, array(STRING, 2, text("", claimed=2**62)))),
    "an array of arrays": gguf(pair("k", ARRAY, array(ARRAY, 1, array(ARRAY, 1, array(UINT8, 1, b"\0"))))),
    "a type of value that is none": gguf(pair("k", 77, b"\0" * 8)),
    "an array of a type that is none": gguf(pair("k", ARRAY, array(77, 1, b"\0" * 8))),
    "nothing but its magic": b"GGUF",
    "another version": b"GGUF" + struct.pack("<IQQ", 2**31, 0, 0),
}


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
