"""Which module attributes may count the channels of a call: guesses, for a check to decide.

A size such as `self.width` reaches an operator as a bare number. That it counts channels is guessed
from its value, in every call at the same line, and holds if the network follows cuts once the
attribute does.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

from stages.trace.propagate.attributes import Follow, holder, parts, size, sizes
from stages.trace.propagate.label_pass import Pass
from stages.trace.propagate.readings import Reading

Guess = tuple[Follow, ...]

_MOST = 6  # at a site, of each reading
_SINGLE = 3  # guesses of one attribute for each part that an operator does not name


def guesses(state: Pass, site: str) -> list[Guess]:
    """What attributes may count at a site, the likeliest first; each is to be tried as a whole."""
    found = _matches(state, site)
    named = [part for part in found if not part.startswith(("result", "width"))]
    named = [part for part in named if found[part]]
    made: list[Guess] = []
    if named:
        made.append(_one_each(named, found))
        # outermost first: a module may hand its number down to one that keeps an equal number
        made.append(_one_each(named, {part: found[part][::-1] for part in named}))
    for part in found:
        if part not in named:
            made += [(follow,) for follow in found[part][:_SINGLE]]
    made += [(*made[0], *guess) for guess in made[1:] if named and guess[0].part not in named]
    return list(dict.fromkeys(made))[:_MOST]


def points_read_by_name(state: Pass, site: str) -> Guess:
    """Attributes that methods of their module name and whose values are the points of a site."""
    found = _matches(state, site)
    named = [part for part in found if not part.startswith(("result", "width"))]
    modules = [holder(call.module, 0) for call, _, _ in state.passing[site]]
    kinds = {type(state.modules[path]) for path in modules if path is not None}
    read = set().union(*(_names(kind.__mro__) for kind in kinds))
    found = {part: [f for f in found[part] if f.attribute.partition(".")[0] in read]
             for part in named}  # fmt: skip
    return _one_each([part for part in named if found[part]], found)


def _one_each(names: Sequence[str], found: dict[str, list[Follow]]) -> Guess:
    """An attribute for each part, as far as they go another one each."""
    taken: dict[tuple[int, str], Follow] = {}
    made = []
    for part in names:
        free = [follow for follow in found[part] if (follow.depth, follow.attribute) not in taken]
        follow = (free or found[part])[0]
        taken[follow.depth, follow.attribute] = follow
        made.append(follow)
    return tuple(made)


def _matches(state: Pass, site: str) -> dict[str, list[Follow]]:
    """{part: attributes that are as large in every call at the site that has the part}."""
    # layers' own widths follow by rule
    declared = {width[:2] for width in state.labels.widths} - set(state.followed)
    found: dict[str, dict[Follow, None]] = {}
    reading = state.readings.get(site, Reading.INNER)
    for call, bound, result in state.passing[site]:
        for part, labels in parts(call, bound, result, reading).items():
            new = part not in found
            if new:
                found[part] = dict.fromkeys(_of_size(state, call.module, part, len(labels)))
            for follow in list(found[part]):
                path = holder(call.module, follow.depth)
                value = size(state.modules.get(path or ""), follow.attribute)
                if path is None or value != len(labels) or (path, follow.attribute) in declared:
                    del found[part][follow]
    return {part: list(follows) for part, follows in found.items()}


def _of_size(state: Pass, path: str, part: str, number: int) -> Iterator[Follow]:
    """Attributes with this value, from the innermost module outwards; for "sizes.1", second entries
    of lists come first.
    """
    if number < 2:  # a single channel is never cut
        return
    entry = part.rpartition(".")[2]
    depth = 0
    while (outer := holder(path, depth)) is not None:
        module = state.modules.get(outer)
        known = [] if module is None else sizes(module)  # an empty Sequential is false
        equal = [name for name, value in known if value == number]
        for name in sorted(equal, key=lambda name: name.rpartition(".")[2] != entry):
            yield Follow(depth, name, part)
        depth += 1


@functools.cache
def _names(bases: tuple[type, ...]) -> frozenset[str]:
    """Names that the methods of these classes read, their `__init__` aside."""
    own = [base for base in bases if not base.__module__.startswith("torch.")]
    codes = [
        method.__code__
        for base in own
        for name, method in vars(base).items()
        if name != "__init__" and hasattr(method, "__code__")  # it names whatever it sets
    ]
    return frozenset().union(*(code.co_names for code in codes))
