"""Programs of a few lines, in place of those that a machine may have."""

from pathlib import Path


def program(path: Path, body: str) -> Path:
    """A shell script at `path` that does `body`."""
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path
