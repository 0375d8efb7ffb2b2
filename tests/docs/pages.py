"""The Markdown pages of the project, taken apart: code blocks, inline code, headings, links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("artifacts", "pretrained_model")
PAGES = (
    *sorted(ROOT.glob("*.md")),
    *sorted(ROOT.glob("docs/**/*.md")),
    *(ROOT / folder / "README.md" for folder in FOLDERS),
)


def name_of(path: Path) -> str:
    """The page as people name it: `docs/method.md`."""
    return path.relative_to(ROOT).as_posix()


@dataclass(frozen=True)
class Piece:
    """A piece of a page. `line` is the number of its first line, from 1; `language` that of a
    fenced block, "inline" for code within a sentence.
    """

    page: str
    line: int
    text: str
    language: str = ""

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Page:
    """Code blocks (fenced, or indented by four spaces), and the prose with the code blanked out."""

    path: Path
    blocks: tuple[Piece, ...]
    prose: str

    @property
    def name(self) -> str:
        return name_of(self.path)

    def inline_code(self) -> Iterator[Piece]:
        for found in re.finditer(r"`([^`]+)`", self.prose):
            line = self.prose.count("\n", 0, found.start()) + 1
            yield Piece(self.name, line, " ".join(found[1].split()), "inline")

    def links(self) -> Iterator[Piece]:
        """Targets of links and pictures."""
        for found in re.finditer(r"\]\(([^)\s]+)\)", self.prose):
            yield Piece(self.name, self.prose.count("\n", 0, found.start()) + 1, found[1])

    def anchors(self) -> set[str]:
        """What can stand behind `#` in a link, by GitHub's rule."""
        headings = re.findall(r"^#+ +(.+)$", self.prose, flags=re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


@cache
def read(path: Path) -> Page:
    """The page in `path`, taken apart."""
    blocks: list[Piece] = []
    prose: list[str] = []
    fence, margin, indented = "", "", False
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        mark = re.match(r"( *)(```+)(\w*)", line)
        blank_before = not prose or not prose[-1].strip()
        if fence:
            closed = line.strip() == fence
            _append(blocks, "" if closed else f"{line.removeprefix(margin)}\n")
            fence = "" if closed else fence
        elif mark:
            margin, fence, indented = mark[1], mark[2], False
            blocks.append(Piece(name_of(path), number + 1, "", mark[3]))
        elif line.startswith("    ") and (indented or blank_before):
            if not indented:
                blocks.append(Piece(name_of(path), number, ""))
            _append(blocks, f"{line[4:]}\n")
            indented = True
        else:
            indented = indented and not line.strip()
            prose.append(line)
            continue
        prose.append("")
    return Page(path, tuple(blocks), "\n".join(prose))


def _append(blocks: list[Piece], text: str) -> None:
    last = blocks[-1]
    blocks[-1] = Piece(last.page, last.line, last.text + text, last.language)


def all_blocks(language: str) -> list[Piece]:
    """Fenced blocks of a language, on all pages."""
    return [block for path in PAGES for block in read(path).blocks if block.language == language]


def command_lines(program: str) -> list[Piece]:
    """Every line that starts with `program`: in blocks without a language, inline code, configs'
    comments and examples.
    """
    found = []
    for path in PAGES:
        page = read(path)
        for block in page.blocks:
            if block.language in ("", "sh"):
                found += _lines_of(block)
        found += page.inline_code()
    for path in [*ROOT.glob("configs/**/*.yaml"), *ROOT.glob("examples/*.*")]:
        if path.suffix == ".png":
            continue
        text = re.sub(r"^#", " ", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        found += _lines_of(Piece(name_of(path), 1, text))
    return [piece for piece in found if piece.text.startswith(f"{program} ")]


def _lines_of(block: Piece) -> Iterator[Piece]:
    """Lines of shell: continuations joined, `$ ` and comments dropped."""
    joined = re.sub(r"\\\n\s*", "", block.text)
    for offset, line in enumerate(joined.splitlines()):
        text = re.sub(r"\s+#.*", "", line).strip().removeprefix("$ ")
        yield Piece(block.page, block.line + offset, text)
