"""The pages of the documentation, taken apart."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs"
PAGES = (ROOT / "README.md", *sorted(DOCS.rglob("*.md")))


class Block(NamedTuple):
    """One fenced block of a page."""

    page: Path
    number: int  # among the page's blocks
    language: str
    mark: str  # the comment `<!-- ... -->` right above it, or an empty string
    text: str

    @property
    def name(self) -> str:
        """Return page and number, as the name of a test."""
        return f"{self.page.relative_to(ROOT).as_posix()}:{self.number}"


def blocks() -> list[Block]:
    """Return every fenced block of README and documentation."""
    fence = re.compile(r"^(?:<!-- ([^\n]*?) -->\n)?```(\w*)\n(.*?)^```$", re.M | re.S)
    return [
        Block(page, number, found[2], found[1] or "", found[3])
        for page in PAGES
        for number, found in enumerate(fence.finditer(page.read_text(encoding="utf-8")), start=1)
    ]


def cells(text: str) -> list[list[str]]:
    """Return the rows of all tables in `text`, without headings, each a list of cells."""
    lines = re.findall(r"^\|.*\|$", text, re.M)
    is_rule = [set(line) <= set("|-") for line in lines]
    is_heading = [*is_rule[1:], False]
    rows = [line for line, rule, heading in zip(lines, is_rule, is_heading, strict=True) if not (rule or heading)]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row[1:-1])] for row in rows]
