"""What `rlp bench` reads from its options: numbers with commas, sizes by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import typer

from pipeline.errors import UsageError


def _is_number(text: str) -> bool:
    # Python refuses to read numbers of thousands of digits, and no size has ten
    return text.isdecimal() and len(text) < 10


def counts(text: str) -> list[int]:
    """The whole numbers of `--batch 1,32`. Raises typer.BadParameter for anything else."""
    parts = [part.strip() for part in text.split(",")]
    if not all(map(_is_number, parts)):
        raise typer.BadParameter(f"{text} is not a whole number, nor several as in 1,32")
    return [int(part) for part in parts]


def numbers(option: str, given: Sequence[list[int]] | None, least: int) -> list[int]:
    """Of all times that the option was given, each number once; 1 without any.

    Raises:
        UsageError: one is below `least`.
    """
    found = list(dict.fromkeys(number for several in given or [[1]] for number in several))
    if min(found) < least:
        raise UsageError(
            f"{option} {min(found)}: expected a whole number from {least} on",
            hint=f"{option} 1,32 takes several",
        )
    return found


def sizes(texts: Sequence[str]) -> dict[str, list[int]]:
    """Sizes by the name of an input or of an open size; those of every input by "".

    Raises:
        UsageError: something else was typed.
    """
    found: dict[str, list[int]] = {}
    for text in texts:
        # a name may hold colons and equals signs, as TensorFlow's `input:0` does
        name, _, size = text.rpartition("=")
        parts = size.lower().split("x")
        if not all(_is_number(part) and int(part) for part in parts):
            raise UsageError(
                f"--shape {text}: expected sizes such as 3x224x224 or NAME=3x224x224",
                hint="leave the batch out: --batch is for it",
            )
        found[name] = [int(part) for part in parts]
    return found


def typed(option: str, texts: Sequence[str] | None) -> list[str]:
    """The option as it was typed, to be typed again."""
    return [word for text in texts or [] for word in (option, text)]


def given(values: Mapping[str, tuple[str, str]], flags: Mapping[str, bool]) -> list[str]:
    """Options that differ from their default, and flags that are set."""
    words = [
        word
        for name, (value, default) in values.items()
        if value != default
        for word in (name, value)
    ]
    return words + [name for name, on in flags.items() if on]
