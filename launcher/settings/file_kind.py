"""Which of trillama's TOML files one is: each is given to another command, and they are easily mistaken."""

import shlex
from collections.abc import Mapping
from enum import Enum
from pathlib import Path


class FileKind(Enum):
    """The kinds: what each is called, and the command that takes it."""

    HOST = "a host's file", "trillama serve --config"
    FAMILY = "a family file", "trillama families check"
    CLUSTER = "a cluster's file", "trillama cluster head"
    PROXY = "the file of a proxy alone", "trillama proxy --config"


_ONLY_IN: Mapping[FileKind, frozenset[str]] = {
    FileKind.FAMILY: frozenset({"weights", "tasks"}),
    FileKind.CLUSTER: frozenset({"front", "ray", "node", "scale"}),
    FileKind.HOST: frozenset({"models", "engine", "supervision", "late_chunking"}),
}


def mistaken_file(given: Mapping[str, object], where: Path | str, wanted: FileKind) -> str | None:
    """A sentence for a file of another kind than the wanted one, by what is in it; None if it is not known to be."""
    found = _kind_of(given)
    if found in (None, wanted):
        return None
    name, command = found.value
    hint = ", or is named in a host's file: family = …" if found is FileKind.FAMILY else ""
    return f"{where} is {name}, not {wanted.value[0]}: it is for `{command} {shlex.quote(str(where))}`{hint}"


def _kind_of(given: Mapping[str, object]) -> FileKind | None:
    backends = given.get("backends")
    rows = backends.values() if isinstance(backends, Mapping) else ()
    if any(isinstance(row, Mapping) and "url" in row for row in rows):
        return FileKind.PROXY
    return next((kind for kind, names in _ONLY_IN.items() if names & given.keys()), None)
