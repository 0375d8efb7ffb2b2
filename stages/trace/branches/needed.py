"""Which branches does forward need? As few runs as find it out, whatever their number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pipeline.channels.branch import Branch
from stages.trace.branches.finding import Found
from stages.trace.branches.trials import Trial


def settled(trial: Trial, found: Sequence[Found]) -> list[Branch]:
    """The branches with their endings as they must be; those that forward needs get a reason."""
    branches = {number: one.branch for number, one in enumerate(found)}
    for level in _levels(found):
        needed = _needed(trial, level)
        for number, one in level.items():
            reason = needed.get(number)
            branches[number] = one.stays(reason).branch if reason else trial.settled(one)
    return list(branches.values())


def _levels(found: Sequence[Found]) -> Iterator[dict[int, Found]]:
    """Branches that may be taken out together: none within another."""
    left = {number: one for number, one in enumerate(found) if one.branch.removable}
    while left:
        outer = {
            n: one for n, one in left.items() if not any(_within(one, o) for o in left.values())
        }
        yield outer
        left = {n: one for n, one in left.items() if n not in outer}


def _within(one: Found, other: Found) -> bool:
    inner, outer = one.candidate.calls, other.candidate.calls
    return inner < outer or (inner == outer and one.candidate.addition < other.candidate.addition)


def _needed(trial: Trial, found: Mapping[int, Found]) -> dict[int, str]:
    """{number: what goes wrong without it alone}.

    Together they fail if one of them does. A run that fails ends where it does, and the branch
    that began last before that is the first suspect, so that each branch that must stay mostly
    costs two runs, and all that may go together cost one.
    """
    left, needed = dict(found), dict[int, str]()
    while left and (problem := trial.problem(left.values())):
        if len(left) == 1:
            return needed | dict.fromkeys(left, problem.text)
        number = max(left, key=lambda n: _begins(left[n], problem.position))
        suspect = {number: left.pop(number)}
        alone = trial.problem(suspect.values())
        if not alone:
            for half in _halves(left):
                needed |= _needed(trial, half)
            return needed
        needed[number] = alone.text
    return needed


def _begins(one: Found, before: int) -> tuple[bool, int]:
    """Sorts branches by where they begin, those that begin before a position last."""
    first = min(one.candidate.calls)
    return first < before, first if first < before else -first


def _halves(found: Mapping[int, Found]) -> list[dict[int, Found]]:
    items = list(found.items())
    middle = len(items) // 2
    return [dict(half) for half in (items[:middle], items[middle:])]
