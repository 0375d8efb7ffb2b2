"""How many runs it takes to find the branches that forward needs, and that these are found."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pytest
import torch
from residual_nets import Inverted, Looks
from torch import Tensor, nn

from stages.trace import trace
from stages.trace.branches.trials import Trial


class Row(nn.Module):
    """Residual blocks one after another; `needed` are those whose forward looks into the branch.

    With `early` the network looks into them itself, before anything runs.
    """

    def __init__(self, count: int, needed: Collection[int], *, early: bool = False) -> None:
        super().__init__()
        self.early = needed if early else ()
        self.stem = nn.Conv2d(3, 6, 1)
        self.blocks = nn.ModuleList(
            Looks() if place in needed and not early else Inverted() for place in range(count)
        )

    def forward(self, x: Tensor) -> Tensor:
        factor = 1.0 + sum(len(self.blocks[place].conv) for place in self.early)
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return x.mean((2, 3)) / factor


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many branches each trial so far has taken out."""
    counts: list[int] = []
    problem = Trial.problem

    def counted(self: Trial, found: Collection[object]) -> object:
        counts.append(len(found))
        return problem(self, found)

    monkeypatch.setattr(Trial, "problem", counted)
    return counts


def staying(net: nn.Module) -> list[str]:
    graph = trace(net.eval(), torch.zeros(1, 3, 4, 4))
    return [branch.id for branch in graph.branches if not branch.removable]


@pytest.mark.parametrize("count", [4, 24])
def test_branches_that_may_all_go_take_one_run(runs: list[int], count: int) -> None:
    assert staying(Row(count, ())) == []
    assert runs == [count]


@pytest.mark.parametrize("needed", [(0,), (11,), (23,), (3, 4, 17)])
def test_one_that_is_needed_takes_one_run_more(runs: list[int], needed: Sequence[int]) -> None:
    assert staying(Row(24, needed)) == [f"blocks.{place}" for place in needed]
    assert len(runs) == 1 + len(needed)


@pytest.mark.parametrize("needed", [(0,), (9,), (20, 22)])
def test_those_are_found_too_that_are_needed_before_they_run(
    runs: list[int], needed: Sequence[int]
) -> None:
    assert staying(Row(24, needed, early=True)) == [f"blocks.{place}" for place in needed]
    assert len(runs) < 24
