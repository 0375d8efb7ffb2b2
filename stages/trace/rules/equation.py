"""Equations of einsum."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

Letters = list[Hashable]


def letters_of(equation: str, ranks: Sequence[int]) -> tuple[list[Letters], Letters]:
    """A letter for every dimension of every operand, and of the result.

    "..." stands for numbers, counted from the right as broadcasting does: of "...c,c" with ranks
    3 and 1 the operands have [-2, -1, "c"] and ["c"], and the result [-2, -1].
    """
    given, arrow, result = equation.replace(" ", "").partition("->")
    inputs = given.split(",")
    rests = [rank - len(text.replace("...", "")) for text, rank in zip(inputs, ranks, strict=True)]
    if not arrow:
        names = given.replace("...", "").replace(",", "")
        # einsum's own order without "->"
        once = [letter for letter in sorted(set(names)) if names.count(letter) == 1]
        result = ("..." if "..." in given else "") + "".join(once)
    terms = [_letters(text, rest) for text, rest in zip(inputs, rests, strict=True)]
    return terms, _letters(result, max(rests))


def _letters(text: str, rest: int) -> Letters:
    first, dots, last = text.partition("...")
    return [*first, *(range(-rest, 0) if dots else ()), *last]
