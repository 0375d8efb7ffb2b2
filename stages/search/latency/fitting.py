"""Fits the latency table to measured candidates.

Tens of layers from tens of measurements need a prior: coefficients per kind of layer are fitted
first, and each layer's own may leave them only as far as the measurements insist (ridge). Which
channel block the runtime uses, and how strong the ridge is, is found by cross-validation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from pipeline.channels.counts import Array
from pipeline.channels.graph import ChannelGraph
from pipeline.channels.widths import LayerWidths
from stages.search.latency.table import LatencyCost

BLOCKS = (1, 8, 16)
RIDGES = (1e-2, 1e-1, 1.0)
FOLDS = 5
_PRIOR_RIDGE = 1e-6  # kinds are few, so this only makes the solution unique
_UNCUT_WEIGHT = 3  # the uncut network, whose latency is 1 by definition, counts like so many others


def fit_latency(
    graph: ChannelGraph, ids: Sequence[str], counts: NDArray[np.int64], fractions: Array
) -> LatencyCost:
    """Fit the table to measured candidates.

    Args:
        ids: groups that `counts` speaks of.
        counts: (n, G) units kept, n >= 2 * FOLDS; the uncut network need not be among them.
        fractions: (n,) their latency as a fraction of the uncut network's.
    """
    uncut = np.array([graph[group].size for group in ids], dtype=np.int64)
    blank = LatencyCost(LayerWidths.of(graph, ids), uncut)
    # the block first, with a middling ridge: the ridge matters less than a wrong block
    by_block = {
        block: _cross_validated(replace(blank, block=block), counts, fractions, RIDGES[1])
        for block in BLOCKS
    }
    blank = replace(blank, block=min(by_block, key=by_block.__getitem__))
    by_ridge = {ridge: _cross_validated(blank, counts, fractions, ridge) for ridge in RIDGES}
    ridge = min(by_ridge, key=by_ridge.__getitem__)
    return replace(_fitted(blank, counts, fractions, ridge), error=by_ridge[ridge])


def _fitted(
    blank: LatencyCost, counts: NDArray[np.int64], fractions: Array, ridge: float
) -> LatencyCost:
    """Kinds of layer first, then layers around them; relative errors are minimised."""
    uncut = np.repeat(blank.uncut[None], _UNCUT_WEIGHT, axis=0)
    counts = np.concatenate([counts, uncut])
    fractions = np.concatenate([fractions, np.ones(_UNCUT_WEIGHT)])
    target = np.ones(len(fractions))
    by_kind, spread = blank.kind_features(counts)
    nothing = np.zeros(by_kind.shape[1])
    prior = spread @ nonnegative(by_kind / fractions[:, None], target, nothing, _PRIOR_RIDGE)
    # a layer may move as much as it matters, and a tenth of the mean if it seems not to
    scale = np.maximum(prior, prior.sum() / len(prior) * 0.1)
    features = blank.features(counts) * scale / fractions[:, None]
    return blank.with_coefficients(nonnegative(features, target, prior / scale, ridge) * scale)


def _cross_validated(
    blank: LatencyCost, counts: NDArray[np.int64], fractions: Array, ridge: float
) -> float:
    """Median absolute relative error on the left-out folds."""
    errors = []
    for fold in range(FOLDS):
        out = np.arange(len(counts)) % FOLDS == fold
        model = _fitted(blank, counts[~out], fractions[~out], ridge)
        predicted = model.features(counts[out]) @ model.coefficients()
        errors.append(np.abs(predicted / fractions[out] - 1))
    return float(np.median(np.concatenate(errors)))


def nonnegative(features: Array, target: Array, centre: Array, ridge: float) -> Array:
    """argmin over x >= 0 of mean (features x - target)^2 + ridge |x - centre|^2 / len(x)."""
    rows, columns = features.shape
    weight = np.sqrt(ridge / columns)
    system = np.concatenate([features / np.sqrt(rows), weight * np.eye(columns)])
    solution, _ = nnls(system, np.concatenate([target / np.sqrt(rows), weight * centre]))
    return np.asarray(solution)
