"""What labels promise about a cut: which slices of every activation are left.

With the labels 1 2 3 4 along the channels of an activation and unit 2 taken out,

    before     a0 a1 a2 a3     shape (n, 4, h, w), channel 1 made of zero weights
    promised   a0    a2 a3     shape (n, 3, h, w), the same numbers

whatever the channels hold.
"""

from __future__ import annotations

import numpy as np
import torch

from pipeline.channels.graph import ChannelGraph, Keep
from stages.trace.propagate.label_pass import Pass
from stages.trace.propagate.label_values import Activation, Vector
from stages.trace.propagate.labels import Settled


class Promises:
    """The promise for every result of every call, when `large` is left first and `small` of that.

    A group that `large` does not name is whole before the second cut.
    """

    def __init__(
        self, state: Pass, settled: Settled, graph: ChannelGraph, large: Keep, small: Keep
    ) -> None:
        self._values = state.values[0]  # of eval mode; a run in training mode is promised nothing
        self._shapes = state.shapes[0]
        self._large = _removed_labels(state, settled, graph, large)
        self._small = _removed_labels(state, settled, graph, small)
        self._left: dict[int, tuple[Vector, Vector, int]] = {}

    def shape(self, position: int, result: int) -> tuple[int, ...] | None:
        """Shape of a result of a call after the second cut; None where labels say nothing."""
        whole = self._shapes[position][result]
        value = self._activation(position, result)
        if whole is None or value is None:
            return None
        left, _ = self._kept(value.vector)
        if len(left) == len(value.vector):
            return whole
        if value.dim is None:  # its only unit goes, and nothing says along which dimension
            return None
        return (*whole[: value.dim], len(left), *whole[value.dim + 1 :])

    def slices(self, position: int, result: int, before: torch.Tensor) -> torch.Tensor | None:
        """A copy of what the second cut leaves of a result; None where labels say nothing."""
        value = self._activation(position, result)
        if value is None or len(value.shape) != before.dim():
            return None
        left, count = self._kept(value.vector)
        if len(left) == count:
            return before.clone()  # later calls may write into it
        # a smaller sample has fewer pixels than `count`, should they count as channels
        if value.dim is None or before.shape[value.dim] != count:
            return None
        return before.index_select(value.dim, torch.from_numpy(left).to(before.device))

    def _activation(self, position: int, result: int) -> Activation | None:
        value = self._values[position]
        if isinstance(value, tuple):
            value = value[result] if result < len(value) else None
        return value if isinstance(value, Activation) else None

    def _kept(self, vector: Vector) -> tuple[Vector, int]:
        """Positions that stay, among those the first cut left, and how many it left."""
        if id(vector) not in self._left:
            labels = np.maximum(vector, 0)  # negative labels would index from the end
            first = vector[~self._large[labels] | (vector <= 0)]
            second = ~self._small[np.maximum(first, 0)] | (first <= 0)
            # with the vector, so that its id stays its own
            self._left[id(vector)] = vector, np.flatnonzero(second), len(first)
        return self._left[id(vector)][1:]


def _removed_labels(state: Pass, settled: Settled, graph: ChannelGraph, keep: Keep) -> np.ndarray:
    """For every label, whether its unit goes."""
    gone = np.zeros(len(settled.roots), dtype=bool)
    for group_id, kept in keep.items():
        first = graph.slices[group_id][0]
        # any slice of a unit has its label
        labels = state.labels.slots[first.parameter, first.dim][first.indices[:, 0]]
        left = np.zeros(len(labels), dtype=bool)
        left[list(kept)] = True
        gone[settled.roots[labels[~left]]] = True
    return gone[settled.roots]
