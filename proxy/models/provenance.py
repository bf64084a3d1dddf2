"""Which file, engine and rules made a vector, so that only comparable vectors are compared."""

import hashlib
import json
import re
from pathlib import Path

from proxy.contract.family import Family

UNKNOWN = "unknown"


def digest_of(model_file: Path) -> str:
    """The file's SHA-256 as `sha256:…`. Blocks for a second per GiB or so, but not for files of the hub's cache.

    There a file is a link to a blob whose name is its SHA-256, checked at the download. A file that is not there
    is unknown: the engine may be on another machine.
    """
    if not model_file.is_file():
        return UNKNOWN
    blob = model_file.resolve().name
    if re.fullmatch("[0-9a-f]{64}", blob):
        return f"sha256:{blob}"
    with model_file.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def space_of(digest: str, family: Family, backend: str) -> str:
    """The vector-space id: a digest of the model's file and of how its tasks prepare a text.

    The prefixes of all of the backend's tasks count, not the request's own: queries and passages are meant to be
    compared. Engine builds and sizes do not count: they change digits, not the space.
    """
    prefixes = {name: row.prefix for name, row in family.tasks.items() if row.backend == backend}
    rules = [digest, backend, "mean", family.unicode_normalization, prefixes]
    return hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()[:16]
