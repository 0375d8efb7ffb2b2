"""Words that were retired stay retired (docs/glossary.md says what replaced them)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CODE = sorted(
    path
    for top in ("pipeline", "stages", "tests", "tools", "examples")
    for path in (ROOT / top).rglob("*.py")
    if not any(part.startswith("test_words") for part in path.parts)
)


def _each(words: str) -> frozenset[str]:
    return frozenset(words.split())


# one word of an identifier or of a file's name: `caster` forbids Caster, `_caster` and caster.py
WORDS = _each("""
    caster twin glance glances hurdle hurdles lesson lessons stopwatch dearest wish wishes mend
    mended strangers hope hopes undisturbed
""")
# whole identifiers, since their words are ordinary elsewhere
NAMES = _each("""
    Setup Forecast Origin Ray Relative Needs HashOnce begin_round in_time learn_from carried_on
    remembered wired remake leftovers told _tell _reader_left
""")
FILES = _each("moves pieces runs values shapes record exported slices verify")


def _identifiers(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Name):
            yield line, node.id
        elif isinstance(node, ast.Attribute):
            yield line, node.attr
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield line, node.name
        elif isinstance(node, ast.arg | ast.keyword) and node.arg:
            yield line, node.arg
        elif isinstance(node, ast.alias):
            yield from ((line, part) for part in (node.asname or node.name).split("."))


def _words(identifier: str) -> set[str]:
    """`_CandidateTimer2` is {candidate, timer}."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", identifier)}


def _retired(identifier: str) -> bool:
    return identifier in NAMES or bool(WORDS & _words(identifier))


def test_retired_words_stay_retired() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {identifier}"
        for path in CODE
        for line, identifier in _identifiers(path)
        if _retired(identifier)
    ]
    files = [str(path.relative_to(ROOT)) for path in CODE if path.stem in FILES]
    assert found + files == []


@pytest.mark.parametrize("word", ["Caster", "_caster_of", "test_hurdles", "HashOnce", "in_time"])
def test_a_retired_word_is_seen_inside_an_identifier(word: str) -> None:
    assert _retired(word)


@pytest.mark.parametrize("word", ["broadcast", "original", "forecastable", "settled", "time"])
def test_ordinary_words_are_left_alone(word: str) -> None:
    assert not _retired(word)
