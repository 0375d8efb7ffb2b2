"""What causes are read off, and what one is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from stages.benchmark.node_times import NodeTime, Profile
from stages.benchmark.setting import Setting

NOTABLE = 0.10  # a cause is worth a sentence from this share of the time on


class Evidence(NamedTuple):
    """What the causes are read off.

    Attributes:
        a, b: profiles of the base and of the file in question.
        setting: what both were profiled at; its provider by its long name.
        peak: GMAC/s that well-shaped float convolutions reach here (`measured_peak`).
        x86: whether the processor is one of Intel's or AMD's.
        dot_product: whether it sums 8-bit products by one instruction (VNNI, AMX, ARM's own).
    """

    a: Profile
    b: Profile
    setting: Setting
    peak: float
    x86: bool = True
    dot_product: bool = True


class Cause(NamedTuple):
    """Why, and how much it matters: about the share of B's time that it concerns."""

    weight: float
    sentence: str


def slowest(nodes: Sequence[NodeTime]) -> list[NodeTime]:
    """The three that take longest."""
    return sorted(nodes, key=lambda node: -node.us)[:3]
