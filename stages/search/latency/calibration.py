"""Latency budgets: candidates of all sizes are timed, and make a table to project with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray
from torch import nn

from pipeline.channels.counts import Cost
from pipeline.channels.graph import ChannelGraph
from pipeline.config.search import SearchConfig
from pipeline.data.images import Images
from stages.quantize.schemes import Scheme
from stages.search.latency.fitting import fit_latency
from stages.search.latency.measurement import Measurement, StartLatency
from stages.search.latency.table import Calibration
from stages.search.latency.timer import CandidateTimer, TimingSetting, time_start
from stages.search.space.candidate import CountsKey
from stages.search.space.projection import Projector
from stages.search.space.ranking import Ranking
from stages.search.space.space import Space

# of the uncut network's MACs, between which candidates for the table are drawn
LEAST_SHARE, MOST_SHARE = 0.15, 0.95
MOST_GONE = 0.6  # of the branches that may go, in every second of them


def calibrate(
    timer: CandidateTimer,
    space: Space,
    macs: Cost,
    *,
    samples: int,
    seed: int,
    start: StartLatency | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Calibration:
    """Time `samples` candidates of all sizes and fit the table to them.

    Args:
        macs: cost by which the candidates are spread out.
        start: absent where it is the original in fp32, as in the first round.
        progress: called with (done, total) after every candidate.
    """
    drawn = spread_out(space, macs, samples, seed)
    found = []
    for index, counts in enumerate(drawn):
        found.append(timer.measure(counts))
        progress(index + 1, len(drawn))
    seconds = float(np.median([one.uncut_seconds for one in found]))
    fractions = np.array([one.fraction for one in found])
    table = fit_latency(timer.graph, space.ids, drawn, fractions)
    return Calibration(table, seconds, start or StartLatency(1.0, seconds), timer.precision)


class Calibrator:
    """Times candidates where a problem asks for it, and keeps the timer for its finalists.

    A context manager; its end ends the timer's worker processes.

    Args:
        model, graph: the uncut network.
        images: of which some are exported with.
        known, on_measure: of the timer, see `CandidateTimer`.
        progress: called with (done, total) after every candidate.
        start: gives the latency of the uncut network against the original's in fp32; absent where
            it is that, as in the first round.
        scheme: how candidates are quantised; None: they are not.

    Attributes:
        timer: of this problem; None where latency is not the budget.
    """

    def __init__(
        self,
        model: nn.Module,
        graph: ChannelGraph,
        images: Images,
        settings: SearchConfig,
        seed: int,
        *,
        known: Mapping[CountsKey, Measurement],
        on_measure: Callable[[CountsKey, Measurement], None],
        progress: Callable[[int, int], None] = lambda done, total: None,
        start: Callable[[CandidateTimer], StartLatency] | None = None,
        scheme: Scheme | None = None,
    ) -> None:
        self.scheme = scheme
        self.model, self.graph = model, graph
        self.example, _ = images.take(2, seed=seed)  # torch.export specialises on 1
        self.settings, self.seed, self.progress, self.start = settings, seed, progress, start
        self.known, self.on_measure = known, on_measure
        self.timer: CandidateTimer | None = None

    def __enter__(self) -> Calibrator:
        return self

    def __exit__(self, *error: object) -> None:
        if self.timer is not None:
            self.timer.close()

    def __call__(self, space: Space, ranking: Ranking, macs: Cost) -> Calibration:
        """Time candidates of this space and fit the table."""
        self.timer = CandidateTimer(
            self.model,
            self.graph,
            ranking,
            self.example,
            TimingSetting.of(self.settings),
            known=self.known,
            on_measure=self.on_measure,
            scheme=self.scheme,
        )
        return calibrate(
            self.timer,
            space,
            macs,
            samples=self.settings.latency_samples,
            seed=self.seed,
            start=None if self.start is None else self.start(self.timer),
            progress=self.progress,
        )


class StartTimer:
    """Times what a search starts from against the original in fp32, once for all its parts.

    Args:
        model, graph: the original.
        kept: what an interrupted search kept of it, as plain JSON types, or None.
        keep: told what a later one is to find.
    """

    def __init__(
        self,
        model: nn.Module,
        graph: ChannelGraph,
        kept: object,
        keep: Callable[[dict[str, float]], None],
    ) -> None:
        self.model, self.graph, self.kept, self.keep = model, graph, kept, keep

    def __call__(self, timer: CandidateTimer) -> StartLatency:
        if known := StartLatency.from_dict(self.kept):
            return known
        parts = timer.ranking, timer.example, timer.setting
        original = CandidateTimer(self.model, self.graph, *parts)
        found = time_start(original, timer)
        self.keep(asdict(found))
        return found


def spread_out(space: Space, macs: Cost, count: int, seed: int) -> NDArray[np.int64]:
    """(count, G) candidates of all sizes and shapes to fit a latency table to.

    Their MACs are spread evenly between 0.15 and 0.95 of the uncut network's; every second one then
    loses some of the branches that may go.
    """
    rng = np.random.default_rng(seed)
    uncut, least = macs.of(space.sizes), macs.of(space.least)
    lowest = max(LEAST_SHARE, least / uncut)
    # by chance, so that time passes over no trend in size, and folds of the fit are alike
    shares = np.linspace(lowest, MOST_SHARE, count)[rng.permutation(count)]
    rows = []
    for share in shares:
        projector = Projector(space, macs, max(share * uncut, least)).keeping_branches
        rows.append(projector.logits(rng.standard_normal(len(space))))
    for place in range(1, count, 2):
        going = rng.random(len(space.branches)) < rng.uniform(0, MOST_GONE)
        for chosen in np.flatnonzero(going):
            rows[place] = space.moved(rows[place], space.branches[chosen][0], 0)
    return np.array(rows, dtype=np.int64)
