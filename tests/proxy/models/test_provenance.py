"""Which vectors can be compared: the id changes with everything that changes vectors, and with nothing else."""

import hashlib
import json
from pathlib import Path

import pytest

from proxy.contract.family import Family
from proxy.models.provenance import engine_name, space_of
from tests.support.models.families import write_family
from tests.support.servers.stack import FAMILY_FILE, family_of

QUERY = {"prefix": "Instruct: {instruction}\nQuery:", "instruction": "find passages"}


def family(folder: Path, changes: dict[str, object] | None = None, **task: str) -> Family:
    path = write_family(folder / "f.toml", changes or {}, tasks={"query": {**QUERY, **task}})
    return family_of(path)


def test_a_family_keeps_the_id_that_it_had_before_there_were_more_rules() -> None:
    """Indexes and caches are kept by it."""
    v4 = family_of(FAMILY_FILE)
    prefixes = {"code.query": "Query: ", "code.passage": "Passage: "}
    rules = json.dumps(["sha256:0", "code", "mean", "NFC", prefixes], sort_keys=True)
    assert space_of("sha256:0", v4, "code") == hashlib.sha256(rules.encode()).hexdigest()[:16]


def test_whatever_changes_vectors_changes_the_id(tmp_path: Path) -> None:
    ids = [
        space_of("sha256:0", family(tmp_path), "tiny"),
        space_of("sha256:1", family(tmp_path), "tiny"),
        space_of("sha256:0", family(tmp_path), "tiny", lora="sha256:2"),
        space_of("sha256:0", family(tmp_path, {"pooling": "last"}), "tiny"),
        space_of("sha256:0", family(tmp_path, {"rope_scaling": {"type": "yarn", "freq_scale": 0.5}}), "tiny"),
        space_of("sha256:0", family(tmp_path, {"sliced_after": "layer_norm"}), "tiny"),
        space_of("sha256:0", family(tmp_path, prefix="{instruction}"), "tiny"),
        space_of("sha256:0", family(tmp_path, instruction="find code"), "tiny"),
        space_of("sha256:0", family(tmp_path).model_copy(update={"unicode_normalization": "NFC"}), "tiny"),
    ]
    assert len(set(ids)) == len(ids)
    assert space_of("sha256:0", family(tmp_path), "tiny") == ids[0]


@pytest.mark.parametrize(
    ("build", "name"),
    [
        ("b6123-0c1e570", "llama.cpp b6123-0c1e570"),
        ("b0-0c1e570", "llama.cpp b0-0c1e570"),
        *((build, "llama.cpp") for build in ("b0-unknown", "b0", "unknown", "")),
    ],
)
def test_an_engine_without_a_build_number_has_none(build: str, name: str) -> None:
    assert engine_name(build) == name
