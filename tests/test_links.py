"""Every link between our Markdown pages leads to a file, and to a heading of it."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "bench").rglob("*.md"))


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


def leads(page: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    there = page.parent / path if path else page
    return there.exists() and (not anchor or there.suffix != ".md" or anchor in anchors(there))


def test_each_link_leads_somewhere() -> None:
    links = [
        (page, link) for page in PAGES for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    ]
    own = [(page, link) for page, link in links if not link.startswith("http")]
    assert len(own) > 50
    assert [(str(page.relative_to(ROOT)), link) for page, link in own if not leads(page, link)] == []


def test_the_index_of_the_documentation_names_every_page() -> None:
    index = ROOT / "docs" / "README.md"
    linked = set(re.findall(r"\]\(([^)\s]+)\)", index.read_text(encoding="utf-8")))
    assert {page.name for page in index.parent.glob("*.md") if page != index} <= linked
