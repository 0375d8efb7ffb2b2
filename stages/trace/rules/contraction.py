"""Sums of products over shared dimensions, the common form of matmul, einsum and attention.

Every dimension has a letter, as in einsum; equal letters are the same index. In the scores of
attention, `bqc,bkc->bqk`, the letter c of the channels is summed over:

    query   b q c   units 1 2 3 4 along c
    key     b k c   units 5 6 7 8 along c, tied to those of the query
    scores  b q k   no channels: a unit that is gone was 0 · 0 in the sum

In `bqk,bkc->bqc` the channels of the values are left over, and pass.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from math import prod
from typing import NamedTuple

import numpy as np

from stages.trace.propagate.label_pass import Pass
from stages.trace.propagate.label_values import Activation, Parameter, Vector
from stages.trace.propagate.readings import Reading

Letters = Sequence[Hashable]
Units = dict[Hashable, Vector]

_MOST_EXTENTS = 2  # widths that a count of multiplications follows


class Term(NamedTuple):
    """A factor and the letters of its dimensions; `zero` where a silenced unit leaves zeros."""

    value: Activation | Parameter
    letters: Letters
    zero: bool = False


def contract(state: Pass, terms: Sequence[Term], out: Letters, counted: Iterable[Hashable]) -> Term:
    """The result of a sum of products; it multiplies as often as the `counted` letters are long.

    Where two dimensions of the result hold units, only those of the last pass, or, by the reading
    OUTER, of the first. Units that are summed over are frozen unless they leave zeros.
    """
    sizes = _sizes(terms)
    terms = [_broadcast(term, sizes) for term in terms]
    units = _tied(state, terms)
    kept = _left(state, [letter for letter in out if letter in units])
    for letter, labels in units.items():
        if letter in out and letter != kept:
            state.labels.freeze(labels, state.why("leaves channels along two dimensions"))
        elif letter not in out and not _vanishes(terms, letter):
            reason = "sums over channels that are not zero once silenced"
            state.labels.freeze(labels, state.why(reason))
    if kept is None:
        kept = _rows(state, terms, out, units)
    _read(state, terms, units)
    _count(state, terms, units, {letter: sizes[letter] for letter in counted})
    shape = tuple(sizes[letter] for letter in out)
    if kept is None:
        return Term(state.fixed(shape, state.why("sums over channels")), out)
    value = Activation(shape, list(out).index(kept), units[kept])
    return Term(value, out, zero=_vanishes(terms, kept))


def _left(state: Pass, letters: Letters) -> Hashable | None:
    if len(letters) > 1:
        state.labels.split_sites[state.call.site] = None
    return None if not letters else letters[0 if state.reading is Reading.OUTER else -1]


def _sizes(terms: Sequence[Term]) -> dict[Hashable, int]:
    sizes: dict[Hashable, int] = {}
    for term in terms:
        for letter, size in zip(term.letters, term.value.shape, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 0))
    return sizes


def _broadcast(term: Term, sizes: Mapping[Hashable, int]) -> Term:
    """A dimension of one that meets a longer one is no part of it."""
    letters = [
        letter if size == sizes[letter] else object()  # equal to no other letter
        for letter, size in zip(term.letters, term.value.shape, strict=True)
    ]
    return term._replace(letters=letters)


def _tied(state: Pass, terms: Sequence[Term]) -> Units:
    """The letters that units lie along; equal positions of all factors are one unit."""
    units: Units = {}
    for value, letters, _ in terms:
        if isinstance(value, Activation) and value.dim is not None:
            letter = letters[value.dim]
            base = units.setdefault(letter, value.vector)
            if list(letters).count(letter) > 1:
                state.labels.freeze(base, state.why("takes a diagonal of channels"))
        elif isinstance(value, Activation) and value.vector[0] > 0:
            state.labels.freeze(value.vector, state.why("multiplies its only unit"))
    for letter, base in units.items():
        for value, dim in _along(terms, letter, Activation):
            arriving = value.along(dim)
            state.labels.tie(base, _fixed(state, len(base)) if arriving is None else arriving)
    return units


def _along(terms: Sequence[Term], letter: Hashable, kind: type) -> Iterator[tuple]:
    return (
        (term.value, dim)
        for term in terms
        if isinstance(term.value, kind)
        for dim, other in enumerate(term.letters)
        if other == letter
    )


def _fixed(state: Pass, size: int) -> Vector:
    reason = state.labels.fixed(state.why("acts across positions, not channels"))
    return np.full(size, reason, dtype=np.int64)


def _vanishes(terms: Sequence[Term], letter: Hashable) -> bool:
    """Whether a factor is zero wherever a unit along this letter is silenced."""
    return any(
        letter in term.letters
        and (
            _plain(term.value)
            if isinstance(term.value, Parameter)
            else term.zero and term.value.dim == list(term.letters).index(letter)
        )
        for term in terms
    )


def _plain(value: Parameter) -> bool:
    return not (value.buffer or value.computed)


def _rows(state: Pass, terms: Sequence[Term], out: Letters, units: Units) -> Hashable | None:
    """The letter of the result along which a weight makes new channels, if there is one."""
    given = {x for term in terms if isinstance(term.value, Activation) for x in term.letters}
    for letter in out:
        owners = list(_along(terms, letter, Parameter))
        if letter in given or len(owners) != 1:
            continue
        weight, dim = owners[0]
        if weight.shape[dim] > 1 and not weight.computed and weight.axis(dim) is not None:
            units[letter] = state.rows(weight, dim)
            return letter
    return None


def _read(state: Pass, terms: Sequence[Term], units: Units) -> None:
    """Parameters are cut along the letters of units, and keep their other widths."""
    for value, letters, _ in terms:
        if isinstance(value, Parameter):
            for dim, letter in enumerate(letters):
                if value.shape[dim] > 1:
                    labels = units.get(letter)
                    fixed = labels if labels is not None else _fixed(state, value.shape[dim])
                    state.read(value, dim, fixed)


def _count(
    state: Pass, terms: Sequence[Term], units: Units, counted: Mapping[Hashable, int]
) -> None:
    extents = [labels for letter, labels in units.items() if letter in counted]
    for labels in extents[_MOST_EXTENTS:]:
        state.labels.freeze(labels, state.why("multiplies along too many channels to count"))
    del extents[_MOST_EXTENTS:]
    weights = [term.value for term in terms if isinstance(term.value, Parameter)]
    # a vector is no layer: its module's row counts
    matrix = len(weights) == 1 and len(state.stored[weights[0].name]) > 1
    weight = weights[0] if matrix else None
    if counted:
        total = prod(counted.values()) // prod(map(len, extents))
        state.count_product(total, *extents, weight=weight)
