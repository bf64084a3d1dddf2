"""The texts given to `trillama embed`: as arguments, on standard input, in files."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from launcher.errors import ArgumentError

STDIN = "-"


def given_texts(arguments: Sequence[str], files: Sequence[Path], stdin: TextIO | None) -> tuple[str, ...]:
    """The arguments in order, `-` as the lines of standard input, then the lines of the files.

    Raises ArgumentError if there is no text, or if a line is empty.
    """
    texts = list[str]()
    for argument in arguments:
        texts += _typed(stdin) if argument == STDIN else [_argument(argument)]
    for file in files:
        texts += _typed(stdin) if str(file) == STDIN else _read(file)
    if not texts:
        raise ArgumentError("no text: give texts, `-` for the lines of standard input, or --file")
    return tuple(texts)


def _argument(text: str) -> str:
    return os.fsencode(text).decode(errors="replace")  # UTF-8, whatever the locale says


def _typed(stdin: TextIO | None) -> list[str]:
    return _lines(stdin.buffer.read(), "standard input") if stdin else []


def _read(file: Path) -> list[str]:
    try:
        return _lines(file.read_bytes(), str(file))
    except OSError as error:
        raise ArgumentError(f"--file {file}: cannot be read: {error.strerror}") from error


def _lines(content: bytes, where: str) -> list[str]:
    """Each line is a text. Vectors are numbered by lines, so only lines at the end may be empty."""
    try:
        text = content.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise ArgumentError(f"{where} is not UTF-8 ({error.reason} at byte {error.start}): convert it") from error
    texts = [line.removesuffix("\r") for line in text.split("\n")] if text else []
    empty = [number for number, text in enumerate(texts, 1) if not text.strip()]
    if empty:
        raise ArgumentError(f"{where}: line {empty[0]} is empty, but every line is a text: leave it out")
    return texts
