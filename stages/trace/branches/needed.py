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
    """{number: what goes wrong without it}.

    Together they fail if one of them does. A run that fails ends where it does, and the branch
    that began last before that is the suspect: it is needed if the others get further. So all that
    may go cost one run together, and each that must stay mostly one more.
    """
    left, needed = dict(found), dict[int, str]()
    problem = trial.problem(left.values())
    while problem and len(left) > 1:
        number = _suspect(left, problem.position)
        suspect = left.pop(number)
        before, problem = problem, trial.problem(left.values())
        if problem and problem.position <= before.position:  # one of the others does the same
            alone = trial.problem([suspect])
            if not alone:
                return needed | _needed_in_halves(trial, left)
            before = alone
        needed[number] = before.text
    return needed | (dict.fromkeys(left, problem.text) if problem else {})


def _suspect(found: Mapping[int, Found], position: int) -> int:
    """The branch that began last before this position, or else the one that begins first."""
    first = {number: min(one.candidate.calls) for number, one in found.items()}
    before = [number for number in found if first[number] < position]
    return max(before, key=first.__getitem__) if before else min(first, key=first.__getitem__)


def _needed_in_halves(trial: Trial, found: Mapping[int, Found]) -> dict[int, str]:
    items, middle = list(found.items()), len(found) // 2
    halves = [dict(half) for half in (items[:middle], items[middle:]) if half]
    return {number: text for half in halves for number, text in _needed(trial, half).items()}
