"""Latency of a candidate, predicted from its widths in microseconds.

Prediction is a table with two coefficients a layer and one a branch that may go, fitted to
candidates measured on this machine (stages/search/latency/fitting.py):

    latency(k) / latency(uncut) = c + sum over layers l:  a_l * macs_l(k) / macs_l(uncut)
                                                        + b_l * out_l(k) / out_l(uncut)
                                    + sum over branches:  d_b while it is there

The first term is arithmetic, the second memory traffic and everything element-wise behind a layer,
the third what the nodes of a branch take however narrow they are.
Widths are rounded up to the runtime's channel block first. All coefficients are >= 0, so wider is
never faster and a budget can be projected onto.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from pipeline.channels.counts import Array, Counts
from pipeline.channels.widths import LayerWidths
from stages.search.latency.measurement import StartLatency


@dataclass(frozen=True)
class LatencyCost:
    """The fitted table; a `Cost` whose unit is the fraction of the uncut network's latency.

    Attributes:
        uncut: units of every group before the cut, (G,).
        block: widths are rounded up to multiples of this.
        constant: the share that no width changes.
        arithmetic, traffic: (T,) shares a_l and b_l.
        presence: (B,) shares d_b of the branches that may go.
        error: median absolute relative error of prediction on measured candidates left out of the
            fit.
    """

    widths: LayerWidths
    uncut: Counts
    block: int = 1
    constant: float = 0.0
    arithmetic: Array = field(default_factory=lambda: np.zeros(0))
    traffic: Array = field(default_factory=lambda: np.zeros(0))
    presence: Array = field(default_factory=lambda: np.zeros(0))
    error: float = float("nan")
    metric: str = "latency"

    def of(self, counts: Counts) -> float:
        return float(self.each(counts[None])[0])

    def each(self, counts: Counts) -> Array:
        out, macs = self._sizes(counts)
        per_mac, per_out = self._per_unit
        there = self._there(counts) @ self.presence if len(self.presence) else 0.0
        return self.constant + macs @ per_mac + out @ per_out + there

    def deltas(self, counts: Counts, steps: Counts) -> Array:
        """Only the layers that a group touches are looked at again."""
        layer, group, more_out, more_in = self._touched
        per_mac, per_out = self._per_unit
        raw, half = counts @ self._matrix + self._fixed, len(self.widths.names)
        both = self._rounded(raw)
        step = steps[group]
        out = self._rounded(raw[:half][layer] + step * more_out)
        into = self._rounded(raw[half:][layer] + step * more_in)
        # a branch that has gone does not come back by one of its groups
        left = self.widths.dropping.left(counts)
        per_mac, per_out = per_mac * left, per_out * left
        before = both[:half] * (both[half:] * per_mac + per_out)
        after = out * (into * per_mac[layer] + per_out[layer])
        change = np.bincount(group, after - before[layer], len(counts))
        # by rounding alone, wider could seem cheaper
        return np.where(steps > 0, np.maximum(change, 0.0), np.minimum(change, 0.0))

    @cached_property
    def _touched(self) -> tuple[NDArray[np.int64], NDArray[np.int64], Array, Array]:
        """Pairs of layer and group that meet; channels that a unit adds to output and input."""
        layer, group = np.nonzero((self.widths.out != 0) | (self.widths.into != 0))
        return layer, group, self.widths.out[layer, group], self.widths.into[layer, group]

    @cached_property
    def _per_unit(self) -> tuple[Array, Array]:
        """Coefficients per MAC and per output channel, (T,) each."""
        out, macs = self._uncut_sizes
        return self.arithmetic / macs, self.traffic / out

    @cached_property
    def _uncut_sizes(self) -> tuple[Array, Array]:
        return self._sizes(self.uncut)

    def features(self, counts: NDArray[np.int64]) -> Array:
        """One, then MACs, then output width of every layer, then 1 for every branch that is there:
        (n, 1 + 2T + B) for counts (n, G).

        MACs and widths are shares of those of the uncut network.
        """
        out, macs = self._sizes(counts)
        uncut_out, uncut_macs = self._uncut_sizes
        one = np.ones((len(counts), 1))
        parts = one, macs / uncut_macs, out / uncut_out, self._there(counts)
        return np.concatenate(parts, axis=1)

    def _there(self, counts: NDArray[np.int64]) -> Array:
        """(..., B): 1 for every branch that may go and has not."""
        return 1.0 - self.widths.dropping.gone(counts)[..., self._may_go].astype(np.float64)

    @cached_property
    def _may_go(self) -> NDArray[np.bool_]:
        """Which of the branches the counts can drop."""
        return np.asarray(self.widths.dropping.inside.any(-1))

    def kind_features(self, counts: NDArray[np.int64]) -> tuple[Array, Array]:
        """The same summed by kind of layer, (n, 1 + 2K), and how a kind's share is spread.

        The spread is (1 + 2T + B, 1 + 2K): in proportion to the layers' MACs or output elements.
        Branches, if any may go, are one kind more, spread by how many layers they have.
        """
        uncut_out, uncut_macs = self._uncut_sizes
        amounts = uncut_macs * self.widths.rest * self.widths.pixels, uncut_out * self.widths.pixels
        kinds = sorted(set(self.widths.kinds))
        member = np.array(
            [[kind == own for kind in kinds] for own in self.widths.kinds], dtype=np.float64
        )
        spread = np.zeros((1 + 2 * len(member), 1 + 2 * len(kinds)))
        spread[0, 0] = 1
        for part, amount in enumerate(amounts):
            shares = member * amount[:, None]
            rows = slice(1 + part * len(member), 1 + (part + 1) * len(member))
            columns = slice(1 + part * len(kinds), 1 + (part + 1) * len(kinds))
            spread[rows, columns] = shares / shares.sum(axis=0)
        if self._may_go.any():
            share = self.widths.dropping.terms[self._may_go].sum(-1).astype(np.float64)
            spread = linalg.block_diag(spread, share[:, None] / share.sum())
        return self.features(counts) @ spread, spread

    def _sizes(self, counts: NDArray[np.int64]) -> tuple[Array, Array]:
        """Output width and output x input width of every layer, (..., T), for counts (..., G)."""
        both = self._rounded(counts @ self._matrix + self._fixed)
        # nothing of a branch without units costs time, not even what is as wide as the trunk
        out = both[..., : len(self.widths.names)] * self.widths.dropping.left(counts)
        return out, out * both[..., len(self.widths.names) :]

    @cached_property
    def _matrix(self) -> Array:
        return np.concatenate([self.widths.out, self.widths.into]).T.copy()

    @cached_property
    def _fixed(self) -> Array:
        return np.concatenate([self.widths.out_fixed, self.widths.into_fixed])

    def _rounded(self, widths: Array) -> Array:
        """Up to uncut blocks; a width of 1 is that of a depthwise filter and stays."""
        if self.block == 1:
            return widths
        return np.where(widths > 1, np.ceil(widths / self.block) * self.block, widths)

    def coefficients(self) -> Array:
        """(1 + 2T + B,): what `features` are multiplied by."""
        return np.concatenate([[self.constant], self.arithmetic, self.traffic, self.presence])

    def with_coefficients(self, coefficients: Array) -> LatencyCost:
        """The same layers with these (1 + 2T + B,) coefficients."""
        count = len(self.widths.names)
        return replace(
            self,
            constant=float(coefficients[0]),
            arithmetic=coefficients[1 : 1 + count],
            traffic=coefficients[1 + count : 1 + 2 * count],
            presence=coefficients[1 + 2 * count :],
        )


@dataclass(frozen=True)
class Calibration:
    """What a latency budget is projected with.

    Attributes:
        table: predicts latency as a fraction of the uncut network's, which this round starts from.
        uncut_seconds: median of that network.
        start: its latency against the original's in fp32.
        precision: "fp32" or "int8", of all latencies but the original's.
    """

    table: LatencyCost
    uncut_seconds: float
    start: StartLatency
    precision: str = "fp32"
