"""From the list of stages and the kinds of artefacts: the chain, its table, a run's layout."""

from __future__ import annotations

from pipeline.run.artifacts import KINDS, Kind, kinds_of
from pipeline.run.rounds import chain as chain_of
from pipeline.run.rounds import is_of_round
from stages import STAGES
from tools.pages.text import cell


def chain() -> str:
    """The stages in order, and below each what it hands on, as an indented picture in
    two rows.
    """
    columns = [(stage.name, _handed_on(stage.name)) for stage in STAGES]
    half = (len(columns) + 1) // 2
    return _indented([*_draw(columns[:half], more=True), "", *_draw(columns[half:], more=False)])


def _handed_on(stage: str) -> str:
    """A word for what a stage is there for: its model, else its first file that is read later."""
    kinds = kinds_of(stage)
    if any("model.safetensors" in kind.files for kind in kinds):
        return "model"
    read = {kind for later in STAGES for kind in later.reads}
    return next((kind for kind in kinds if kind.name in read), kinds[0]).files[0]


def _draw(row: list[tuple[str, str]], more: bool) -> tuple[str, str]:
    widths = [max(map(len, column)) for column in row]
    names = " ─▶ ".join(name.ljust(width) for (name, _), width in zip(row, widths, strict=True))
    files = "    ".join(file.ljust(width) for (_, file), width in zip(row, widths, strict=True))
    return names + (" ─▶" if more else ""), files


def table() -> str:
    """Per stage: what it reads, what it writes, what it does."""
    lines = ["", "| stage | reads | writes | what it does |", "|---|---|---|---|"]
    for stage in STAGES:
        read = [
            f"`{_file(KINDS[kind])}`" for kind in dict.fromkeys((*stage.reads, *stage.original))
        ]
        sources = ["images"] * stage.uses_data + read
        written = [f"`{file}`" for kind in kinds_of(stage.name) for file in kind.files]
        cells = (stage.name, " ".join(sources), " ".join(written), stage.title)
        lines.append(f"| {' | '.join(map(cell, cells))} |")
    return "\n".join([*lines, "", ""])


def _file(kind: Kind) -> str:
    """Where a kind lies in a run; a model is two files."""
    return f"{kind.maker}/{kind.files[0] if len(kind.files) == 1 else 'model.*'}"


def layout() -> str:
    """The folders and files of a run."""
    rows = [("run.json", "the resolved config, sealed with its own hash")]
    for stage in STAGES:
        files = [file for kind in kinds_of(stage.name) for file in kind.files]
        rows.append((f"{stage.name}/", " ".join(files)))
    earlier = [placed.name for placed in chain_of(STAGES, 2) if is_of_round(placed.name)]
    folder = earlier[0].partition("/")[0]
    repeated = " ".join(f"{name.rpartition('/')[2]}/" for name in earlier)
    rows.append((f"{folder}/", f"{repeated} of an earlier round, with `rounds` above 1"))
    rows.append((".work/", "checkpoints and journals of an unfinished stage"))
    width = max(len(name) for name, _ in rows)
    lines = [f"    {name.ljust(width)}  {text}" for name, text in rows]
    return _indented(["artifacts/quickstart/", *lines])


def _indented(lines: list[str]) -> str:
    """A block of code, with the blank lines that Markdown needs around it."""
    return "\n".join(["", *(f"    {line}".rstrip() for line in lines), "", ""])
