"""A patch of llama.cpp's source, applied before it is compiled, completely or not at all."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """Inserts `before` in front of and `behind` after `text`, which must occur exactly once in the file `path`."""

    path: str
    text: str
    before: str = ""
    behind: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """Edits that belong together. A file that contains `mark` already has the edit, by us or upstream."""

    mark: str
    edits: tuple[Edit, ...]


def new_flag(argument: str, field: str) -> tuple[Edit, Edit]:
    """The edits that give llama-server a flag: its `argument`, in C++, and the `field` that it sets, at first false."""
    return (
        Edit(
            path="common/arg.cpp",
            text='.set_examples({LLAMA_EXAMPLE_SERVER, LLAMA_EXAMPLE_DEBUG}).set_env("LLAMA_ARG_EMBEDDINGS"));',
            behind=argument,
        ),
        Edit(
            path="common/common.h",
            text="bool embedding         = false; // get only sentence embedding",
            behind=f"\n    bool {field} = false;",
        ),
    )


def apply(patch: Patch, source: Path) -> str | None:
    """Apply all of the patch's edits to the llama.cpp in the folder `source`, or none.

    Returns None if applied, else the reason why not.
    """
    changed: dict[Path, str] = {}
    for edit in patch.edits:
        path = source / edit.path
        if not path.is_file():
            return f"it has no {edit.path}"
        text = changed.get(path) or path.read_text(encoding="utf-8")
        if patch.mark in text and path not in changed:
            return f"{edit.path} has {patch.mark} already"
        if (count := text.count(edit.text)) != 1:
            return f"{edit.path} has {edit.text.strip()!r} {count} times instead of once"
        changed[path] = text.replace(edit.text, edit.before + edit.text + edit.behind)
    for path, text in changed.items():
        path.write_text(text, encoding="utf-8")
    return None


def digest(patches: Sequence[Patch]) -> str:
    """A short digest that changes with the patches."""
    return sha256(repr(patches).encode()).hexdigest()[:12]
