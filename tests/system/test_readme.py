"""What README and docs/ say to write or run is accepted: commands, settings, Python; their links lead to files."""

import re
import runpy
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
from typer.core import TyperGroup

from launcher.cli.app import app
from launcher.cluster.settings import load_cluster
from launcher.settings.config import load, read_family
from proxy.contract.settings import ProxySettings

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "bench").glob("*.md"))]
COMMENT = re.compile(r"(^|\s+)#( .*|$)")
VARIABLE = re.compile(r'environ(?:\.get\(|\[)"(\w+)"(?!\] =)|_of_systemd\("(\w+)"\)|envvar="(\w+)"')


def blocks(page: Path, language: str) -> list[str]:
    """The page's blocks of code in that language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands() -> Iterator[str]:
    """Every line after a prompt, without its comment and without where its output goes."""
    for page in PAGES:
        for block in blocks(page, "console"):
            for line in block.splitlines():
                if line.startswith("$ "):
                    yield COMMENT.sub("", line.removeprefix("$ ")).split(" > ")[0]


@pytest.mark.parametrize("line", sorted(set(commands())))
def test_a_command_exists_with_these_options(line: str) -> None:
    words = [word for word in shlex.split(line) if word != "sudo"]
    match Path(words[0]).name:
        case "trillama":
            assert_parses(words[1:])
        case "make":
            assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text(encoding="utf-8")
        case "cp":
            assert list(ROOT.glob(words[1]))
        case other:
            assert other in {"apt-get", "curl", "pipx", "systemctl"}


def assert_parses(words: list[str]) -> None:
    """The command line takes these words; nothing is run."""
    command = typer.main.get_command(app)
    while isinstance(command, TyperGroup) and words:
        found = command.get_command(typer.Context(command), words[0])
        assert found, words
        command, words = found, words[1:]
    assert command.name != "trillama", words
    with command.make_context(command.name, words):
        pass


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "toml")], ids=lambda page: page.name)
def test_settings_are_accepted(page: Path, tmp_path: Path) -> None:
    for number, block in enumerate(blocks(page, "toml")):
        if "[token_backends" in block:
            proxy = tomllib.loads((ROOT / "configs" / "proxy.toml").read_text(encoding="utf-8"))
            ProxySettings.model_validate({**proxy, **tomllib.loads(block)})
        elif block.startswith("name = "):  # a family file, by the name that the page gives it
            file = tmp_path / "e5.toml"
            file.write_text(block, encoding="utf-8")
            read_family(file)
        else:
            file = tmp_path / f"{number}.toml"
            file.write_text(block, encoding="utf-8")
            (load_cluster if block.startswith("# cluster.toml") else load)(file)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.name)
def test_python_compiles(page: Path) -> None:
    for block in blocks(page, "python"):
        compile(block, str(page), "exec")


def test_the_readmes_python_is_what_the_openai_client_is_tested_with() -> None:
    script = ROOT / "tests" / "clients" / "scripts" / "openai" / "openai-python.py"
    assert all(block in script.read_text(encoding="utf-8") for block in blocks(README, "python"))


def test_links_lead_to_files() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
            assert "://" in link or (page.parent / link).exists(), (page.name, link)


def test_the_readme_fits_on_two_hundred_lines() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 200


def test_the_readme_names_every_folder() -> None:
    text = README.read_text(encoding="utf-8")
    for package in ("proxy", "launcher"):
        for folder in (path.parent.name for path in (ROOT / package).glob("*/__init__.py")):
            assert re.search(rf"(^|  ){folder} ", text, re.MULTILINE), (package, folder)


def test_the_page_of_settings_is_up_to_date() -> None:
    page = runpy.run_path(str(ROOT / "docs" / "generate.py"))["page"]
    assert (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8") == page(), "run `make docs`"


def test_the_page_of_variables_names_those_that_are_read() -> None:
    page = (ROOT / "docs" / "environment.md").read_text(encoding="utf-8")
    files = [file for package in ("proxy", "launcher") for file in (ROOT / package).rglob("*.py")]
    read = {name for file in files for found in VARIABLE.findall(file.read_text(encoding="utf-8")) for name in found}
    assert not {name for name in read if name and f"`{name}`" not in page}
