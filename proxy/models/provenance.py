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


def engine_name(build: str) -> str:
    """The engine with its build, as `/props` has it; xllamacpp's says b0-unknown, which is none."""
    return "llama.cpp" if re.fullmatch(r"(b0)?-?(unknown)?", build) else f"llama.cpp {build}"


def space_of(digest: str, family: Family, backend: str, *, lora: str | None = None) -> str:
    """The vector-space id: a digest of the files of model and LoRA, and of how a text becomes tokens and a vector.

    The prefixes of all of the backend's tasks count, with their own instructions, not the request's: queries and
    passages are meant to be compared. Engine builds and sizes do not count: they change digits, not the space. What a
    family does not use is left out, so that its id stays when a later version knows more rules.
    """
    rows = {name: row for name, row in family.tasks.items() if row.backend == backend}
    rules: list[object] = [digest, backend, family.weights.pooling, family.unicode_normalization]
    rules.append({name: row.prefix for name, row in rows.items()})
    words, scaling = family.tokenizer.words, family.weights.rope_scaling
    optional: dict[str, object] = {
        "lora": lora,
        "rope_scaling": scaling and scaling.model_dump(),
        "sliced_after": family.weights.sliced_after,
        "words": None if words == "engine" else words,
        "instructions": {name: row.instruction for name, row in rows.items() if row.instruction is not None},
    }
    if used := {name: rule for name, rule in optional.items() if rule}:
        rules.append(used)
    return hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()[:16]
