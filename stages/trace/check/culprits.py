"""Which groups a cut must leave alone, found by halving."""

from __future__ import annotations

from collections.abc import Callable

from stages.trace.check.followers import Deviation


def culprits(
    ids: list[str], deviation: Deviation, check: Callable[[list[str]], Deviation | None]
) -> dict[str, str]:
    """Those of the groups that alone, or only together, do not survive a cut: {group id: problem}.

    Args:
        deviation: what goes wrong when all of them are cut.
        check: says the same of some of them.
    """
    middle = len(ids) // 2
    halves = [ids[:middle], ids[middle:]] if middle else []
    problems = [check(half) for half in halves]
    # another place may only need another reading, unless it hides this one
    here = [problem for problem in problems if problem and problem.site == deviation.site]
    found: dict[str, str] = {}
    for half, problem in zip(halves, problems, strict=True):
        if problem in here or (problem and not here):
            found |= culprits(half, problem, check)
    return found or dict.fromkeys(ids, str(deviation))
