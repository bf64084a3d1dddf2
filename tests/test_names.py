"""A public name stands once over both packages and the benchmarks, so that a search for it finds one thing."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("proxy", "launcher", "bench")
# Each process has its `main`, each module its `log` and type variable `T`; PART_OF marks both packages as ours.
EVERYWHERE = {"main", "log", "T", "PART_OF"}
OF_A_DIALECT = {"parse", "render_error", "DIALECTS"}  # what a module of `proxy.dialects` consists of


def public_names(module: ast.Module) -> Iterator[str]:
    """The classes, functions and constants that a module defines."""
    for node in module.body:
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                names = [name]
            case ast.Assign(targets=[ast.Tuple(elts=targets)] | targets):
                names = [target.id for target in targets if isinstance(target, ast.Name)]
            case ast.AnnAssign(target=ast.Name(id=name)):
                names = [name]
            case _:
                names = []
        yield from (name for name in names if not name.startswith("_"))


def test_a_public_name_stands_once() -> None:
    places = defaultdict[str, list[str]](list)
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        for name in public_names(ast.parse(path.read_text(encoding="utf-8"))):
            places[name].append(str(path.relative_to(ROOT)))
    twice = {name: where for name, where in places.items() if len(where) > 1 and name not in EVERYWHERE}
    dialects = {name: where for name, where in twice.items() if name in OF_A_DIALECT}
    assert twice == dialects
    for where in dialects.values():
        assert {path for path in where if not path.startswith("proxy/dialects/")} <= {"proxy/http/routes.py"}
