"""Every code block of every document, as found by a Markdown parser: whatever is added to a page is run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

PROJECT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Block:
    """A code block.

    :param page: its document, relative to the project's folder.
    :param line: where it begins.
    :param language: the text after the fence, such as ``python`` or ``{toctree}``.
    """

    page: str
    line: int
    language: str
    code: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: str) -> Iterator[Block]:
    """Find the code blocks of a document."""
    for token in MarkdownIt().parse((PROJECT / page).read_text()):
        if token.type in ("fence", "code_block"):
            language = token.info.split()[0] if token.info.split() else ""
            yield Block(page, token.map[0] + 1, language, token.content)


PAGES = sorted(str(path.relative_to(PROJECT)) for path in [*PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md")])
BLOCKS = [block for page in PAGES for block in blocks_of(page)]
