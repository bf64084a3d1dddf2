"""Finds the line of a setting in a TOML file, for messages about it.

tomllib keeps no lines, so the file's first lines are parsed, one more each time, until they have the setting.
"""

import tomllib
from collections.abc import Mapping, Sequence


def line_of(text: str, fault: str) -> int | None:
    """The line of the setting that the fault begins with, such as `weights.pooling: …`, or of the table it lacks in.

    The first line, of a value on several. None for a fault that names no part of the file. `text` must be valid TOML.
    """
    place = _place(tomllib.loads(text), fault)
    if not place:
        return None
    lines, begun = text.splitlines(keepends=True), 0
    for end in range(1, len(lines) + 1):
        found = _parsed("".join(lines[:end]))
        if found is None:
            continue
        if _has(found, place):
            return begun + 1
        begun = end
    return None


def _place(given: object, fault: str) -> tuple[str | int, ...]:
    """The longest path of existing keys that the fault begins with."""
    items = given.items() if isinstance(given, Mapping) else enumerate(given) if isinstance(given, list) else ()
    for key, inner in sorted(items, key=lambda item: -len(str(item[0]))):  # a key may begin with another
        rest = fault.removeprefix(str(key))
        if rest != fault and rest[:1] in {".", ":", " ", ""}:
            return key, *_place(inner, rest.lstrip(".: "))
    return ()


def _parsed(text: str) -> object:
    """The content of the beginning of a file; None where it ends within a value."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None


def _has(given: object, place: Sequence[str | int]) -> bool:
    for part in place:
        keys = given if isinstance(given, Mapping) else dict(enumerate(given)) if isinstance(given, list) else {}
        if part not in keys:
            return False
        given = keys[part]
    return True
