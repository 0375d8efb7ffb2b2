"""Latency of a candidate: predicted from its widths in microseconds, measured in onnxruntime where
it counts.

Prediction is a table with two coefficients a layer, fitted to candidates measured on this very
machine:

    latency(k) / latency(base) = c + sum over layers l:  a_l * macs_l(k) / macs_l(base)  +  b_l * out_l(k) / out_l(base)

The first term is arithmetic, the second memory traffic and everything element-wise behind a layer.
Widths are rounded up to the runtime's channel block first; which block fits is found by
cross-validation. All coefficients are >= 0, so wider is never faster and a budget can be projected
onto. Tens of layers from tens of measurements need a prior: coefficients per kind of layer are
fitted first, and each layer's own may leave them only as far as the measurements insist (ridge).

Measurement slices the exported base graph (stages.export.OnnxSlicer) and times it against the base
in alternating slots (stages.benchmark.latency.LatencyWorker), so that a busy machine disturbs both
alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pipeline.channels.counts import Array, Counts
from pipeline.channels.widths import LayerWidths
from stages.trace import ChannelGraph

_BLOCKS = (1, 8, 16)
_RIDGES = (1e-2, 1e-1, 1.0)
_FOLDS = 5


@dataclass(frozen=True)
class LatencyCost:
    """The fitted table; a `Cost` whose unit is the fraction of the base's latency.

    Attributes:
        block: widths are rounded up to multiples of this. constant: the share that no width
        changes. arithmetic, traffic: (T,) shares a_l and b_l. error: median absolute relative error
        of prediction on measured candidates left out of the fit.
    """

    widths: LayerWidths
    whole: Counts
    block: int = 1
    constant: float = 0.0
    arithmetic: Array = field(default_factory=lambda: np.zeros(0))
    traffic: Array = field(default_factory=lambda: np.zeros(0))
    error: float = float("nan")
    metric: str = "latency"

    def of(self, counts: Counts) -> float:
        return float(self.each(counts[None])[0])

    def each(self, counts: Counts) -> Array:
        out, macs = self._sizes(counts)
        per_mac, per_out = self._per_unit
        return self.constant + macs @ per_mac + out @ per_out

    def deltas(self, counts: Counts, steps: Counts) -> Array:
        """Only the layers that a group touches are looked at again."""
        layer, group, more_out, more_in = self._touched
        per_mac, per_out = self._per_unit
        raw, half = counts @ self._matrix + self._bases, len(self.widths.names)
        both = self._rounded(raw)
        step = steps[group]
        out = self._rounded(raw[:half][layer] + step * more_out)
        into = self._rounded(raw[half:][layer] + step * more_in)
        before = both[:half] * (both[half:] * per_mac + per_out)
        after = out * (into * per_mac[layer] + per_out[layer])
        change = np.bincount(group, after - before[layer], len(counts))
        return np.where(steps > 0, np.maximum(change, 0.0), np.minimum(change, 0.0))

    @cached_property
    def _touched(self) -> tuple[NDArray[np.int64], NDArray[np.int64], Array, Array]:
        """Pairs of layer and group that meet, and the channels that one unit adds to output and
        input.
        """
        layer, group = np.nonzero((self.widths.out != 0) | (self.widths.into != 0))
        return layer, group, self.widths.out[layer, group], self.widths.into[layer, group]

    @cached_property
    def _per_unit(self) -> tuple[Array, Array]:
        """Coefficients per MAC and per output channel, (T,) each."""
        out, macs = self._whole_sizes
        return self.arithmetic / macs, self.traffic / out

    @cached_property
    def _whole_sizes(self) -> tuple[Array, Array]:
        return self._sizes(self.whole)

    def features(self, counts: NDArray[np.int64]) -> Array:
        """(B, 1 + 2T) for counts (B, G): one, MACs and output width of every layer as a share
        of the base's.
        """
        out, macs = self._sizes(counts)
        base_out, base_macs = self._whole_sizes
        return np.concatenate([np.ones((len(counts), 1)), macs / base_macs, out / base_out], axis=1)

    def kind_features(self, counts: NDArray[np.int64]) -> tuple[Array, Array]:
        """The same summed by kind of layer, (B, 1 + 2K), and how a kind's share is spread, (1 +
        2T, 1 + 2K).
        """
        base_out, base_macs = self._whole_sizes
        amounts = base_macs * self.widths.rest * self.widths.pixels, base_out * self.widths.pixels
        kinds = sorted(set(self.widths.kinds))
        member = np.array(
            [[kind == own for kind in kinds] for own in self.widths.kinds], dtype=np.float64
        )
        spread = np.zeros((1 + 2 * len(member), 1 + 2 * len(kinds)))
        spread[0, 0] = 1
        for part, amount in enumerate(amounts):
            shares = member * amount[:, None]
            rows = slice(1 + part * len(member), 1 + (part + 1) * len(member))
            spread[rows, 1 + part * len(kinds) : 1 + (part + 1) * len(kinds)] = shares / shares.sum(
                axis=0
            )
        return self.features(counts) @ spread, spread

    def _sizes(self, counts: NDArray[np.int64]) -> tuple[Array, Array]:
        """Output width and output x input width of every layer, (..., T), for counts (..., G)."""
        both = self._rounded(counts @ self._matrix + self._bases)
        out = both[..., : len(self.widths.names)]
        return out, out * both[..., len(self.widths.names) :]

    @cached_property
    def _matrix(self) -> Array:
        return np.concatenate([self.widths.out, self.widths.into]).T.copy()

    @cached_property
    def _bases(self) -> Array:
        return np.concatenate([self.widths.out_fixed, self.widths.into_fixed])

    def _rounded(self, widths: Array) -> Array:
        """Up to whole blocks; a width of 1 is that of a depthwise filter and stays."""
        if self.block == 1:
            return widths
        return np.where(widths > 1, np.ceil(widths / self.block) * self.block, widths)

    def _coefficients(self) -> Array:
        return np.concatenate([[self.constant], self.arithmetic, self.traffic])

    def _with(self, coefficients: Array) -> LatencyCost:
        count = len(self.widths.names)
        return replace(
            self,
            constant=float(coefficients[0]),
            arithmetic=coefficients[1 : 1 + count],
            traffic=coefficients[1 + count :],
        )


def fit_latency(
    graph: ChannelGraph, ids: Sequence[str], counts: NDArray[np.int64], fractions: Array
) -> LatencyCost:
    """Fit the table to measured candidates.

    Args:
        counts: (n, G) units kept, n >= 2 * folds; the base need not be among them.
        fractions: (n,) their latency as a fraction of the base's.
    """
    whole = np.array([graph[group].size for group in ids], dtype=np.int64)
    blank = LatencyCost(LayerWidths.of(graph, ids), whole)
    errors = {
        block: _cross_validated(replace(blank, block=block), counts, fractions, _RIDGES[1])
        for block in _BLOCKS
    }
    blank = replace(blank, block=min(errors, key=errors.__getitem__))
    by_ridge = {ridge: _cross_validated(blank, counts, fractions, ridge) for ridge in _RIDGES}
    ridge = min(by_ridge, key=by_ridge.__getitem__)
    return replace(_fitted(blank, counts, fractions, ridge), error=by_ridge[ridge])


def _fitted(
    blank: LatencyCost, counts: NDArray[np.int64], fractions: Array, ridge: float
) -> LatencyCost:
    """Kinds first, then layers around them; relative errors are minimised; the base counts like
    three candidates.
    """
    counts = np.concatenate([counts, np.repeat(blank.whole[None], 3, axis=0)])
    target = np.concatenate([fractions, np.ones(3)])
    coarse, spread = blank.kind_features(counts)
    prior = spread @ nonnegative(
        coarse / target[:, None], np.ones(len(target)), np.zeros(coarse.shape[1]), 1e-6
    )
    scale = np.maximum(
        prior, prior.sum() / len(prior) * 0.1
    )  # a layer may move as much as it matters
    features = blank.features(counts) * scale / target[:, None]
    return blank._with(nonnegative(features, np.ones(len(target)), prior / scale, ridge) * scale)


def _cross_validated(
    blank: LatencyCost, counts: NDArray[np.int64], fractions: Array, ridge: float
) -> float:
    """Median absolute relative error on the left-out folds."""
    errors = []
    for fold in range(_FOLDS):
        out = np.arange(len(counts)) % _FOLDS == fold
        model = _fitted(blank, counts[~out], fractions[~out], ridge)
        errors.append(
            np.abs(model.features(counts[out]) @ model._coefficients() / fractions[out] - 1)
        )
    return float(np.median(np.concatenate(errors)))


def nonnegative(
    features: Array, target: Array, centre: Array, ridge: float, sweeps: int = 60
) -> Array:
    """argmin over x >= 0 of mean (features x - target)^2 + ridge |x - centre|^2 / len(x), by
    coordinate descent.
    """
    rows, columns = features.shape
    gram = features.T @ features / rows + np.eye(columns) * ridge / columns
    pull = features.T @ target / rows + centre * ridge / columns
    x = np.maximum(centre, 0.0).copy()
    gradient = gram @ x - pull
    for _ in range(sweeps):
        largest = 0.0
        for index in range(columns):
            moved = max(0.0, x[index] - gradient[index] / gram[index, index])
            step = moved - x[index]
            if step:
                x[index] = moved
                gradient += gram[:, index] * step
                largest = max(largest, abs(step))
        if largest < 1e-5:
            break
    return x
