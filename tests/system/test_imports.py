"""The launcher knows the proxy by its settings alone, and the proxy does not know the launcher."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONTRACT = {"proxy.contract.settings", "proxy.contract.settings_file"}


def imported(package: str) -> Iterator[str]:
    for file in (ROOT / package).glob("**/*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from (one.name for one in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module in ("proxy", "proxy.contract"):
                yield from (f"{node.module}.{one.name}" for one in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield node.module


def test_the_launcher_imports_the_settings_of_the_proxy_and_nothing_else_of_it() -> None:
    assert {name for name in imported("launcher") if name.split(".")[0] == "proxy"} == CONTRACT


def test_the_proxy_imports_nothing_of_the_launcher() -> None:
    assert not [name for name in imported("proxy") if name.split(".")[0] == "launcher"]
