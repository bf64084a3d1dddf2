"""Family files of a part of the backends."""

import tomllib
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
