"""How often a network is cut until its readings are settled."""

from __future__ import annotations

import pytest
import torch
from moved_nets import PixelUnshuffleByHand
from net_cases import conv

from stages.trace import trace
from stages.trace.check.copies import Cuts
from stages.trace.cut_check import CutCheck


class AfterAnother(PixelUnshuffleByHand):
    """Channels that only the second reading opens, behind some that are open at once."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a = conv(3, 5), conv(5, 8)

    def features(self, x):
        return super().features(self.stem(x))


def test_what_opens_more_is_cut_by_all_draws_and_what_it_comes_from_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    groups: list[list[str]] = []
    deviation = CutCheck.deviation

    def counted(self: CutCheck, graph: object, cuts: Cuts, *rest: object, **more: object) -> object:
        groups.append(sorted(cuts.small))
        return deviation(self, graph, cuts, *rest, **more)

    monkeypatch.setattr(CutCheck, "deviation", counted)
    graph = trace(AfterAnother().eval(), torch.randn(2, 3, 8, 8))
    opened = sorted(group.id for group in graph.prunable)
    assert groups == [["stem"], opened, opened, opened]
