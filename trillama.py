"""The `trillama` command's entry, and the check that the packages it is made of, `launcher` and `proxy`, are ours.

Both names are common: `pip install proxy.py` overwrites our `proxy`, and any `proxy.py` on PYTHONPATH hides it. This
module's own name is not, and it imports neither package before it has checked both.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

EX_CONFIG = 78  # sysexits.h
PACKAGES = ("launcher", "proxy")
MARK = 'PART_OF = "trillama"'  # in the `__init__` of both
REMEDY = (
    "take it off PYTHONPATH, or `pip uninstall proxy.py` and install trillama again, best in an environment of its own "
    "(`pipx install`, `uv tool install`)"
)


def main() -> None:
    """Run the `trillama` command."""
    check()
    from launcher.__main__ import main as run  # noqa: PLC0415 # not before the check

    run()


def check() -> None:
    """Exit with 78, naming the intruder, unless both packages are ours."""
    if problem := intruder():
        sys.stderr.write(f"trillama: {problem}\n")
        sys.exit(EX_CONFIG)


def intruder() -> str | None:
    """What is imported in place of one of our packages, and the remedy; None if both are ours and beside this file."""
    for name in PACKAGES:
        ours = Path(__file__).resolve().parent / name / "__init__.py"
        spec = find_spec(name)
        found = Path(spec.origin) if spec and spec.origin else None
        if found is None:
            return f"its package `{name}` is missing: install trillama again"
        if found.resolve() != ours.resolve() or MARK not in found.read_text(encoding="utf-8", errors="replace"):
            return f"{found} is another program's `{name}`, and hides or replaces trillama's own: {REMEDY}"
    return None


if __name__ == "__main__":
    main()
