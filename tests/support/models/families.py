"""Family files for the tests: of a part of the backends, or of a tiny model."""

import tomllib
from collections.abc import Mapping
from pathlib import Path

import tomli_w


def only(family: Path, backend: str, to: Path) -> Path:
    """Write the family with the tasks of that backend alone to `to`, and return it."""
    table = tomllib.loads(family.read_text(encoding="utf-8"))
    tasks = {name: row for name, row in table["tasks"].items() if row["backend"] == backend}
    aliases = {name: task for name, task in table["task_aliases"].items() if task in tasks}
    part = {**table, "tasks": tasks, "task_aliases": aliases, "default_task": next(iter(tasks))}
    to.write_text(tomli_w.dumps(part), encoding="utf-8")
    return to


def write_family(
    to: Path, weights: Mapping[str, object], *, tasks: Mapping[str, Mapping[str, str]] | None = None
) -> Path:
    """Write the family of one tiny model, whose backend is `tiny`, to `to`, and return it.

    It has a single task without a prefix unless `tasks` are given; `weights` are added to that table.
    """
    model = {"repo": "nobody/tiny", "file": "tiny.gguf"}
    table = {
        "name": "tiny",
        "owned_by": "nobody",
        "hugging_face_id": "nobody/tiny",
        "licence": "MIT",
        "dimensions": 64,
        "trained_dimensions": [64],
        "max_input_tokens": 512,
        "tasks": {name: {"backend": "tiny", **row} for name, row in (tasks or {"text": {"prefix": ""}}).items()},
        "default_task": next(iter(tasks or ["text"])),
        "weights": {"quantization": "F16", "quantizations": ["F16"], "models": {"tiny": model}, **weights},
    }
    to.write_text(tomli_w.dumps(table), encoding="utf-8")
    return to
