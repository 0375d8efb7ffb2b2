"""How accurate plans are once they are cut and reconstructed, layer by layer, as a run would."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from torch import Tensor

from pipeline.channels.counts import Counts
from pipeline.channels.plan import ChannelPlan
from pipeline.channels.surgery import cut
from pipeline.config.schema import ReconstructConfig
from pipeline.data.images import Images
from pipeline.data.splits import Splits
from pipeline.training.evaluate import accuracy
from pipeline.training.machine import best_device
from stages.reconstruct.engine import reconstruct_layers
from stages.search.evaluation.trial import Outcome
from stages.search.problem import SearchProblem

Check = Callable[[], None]


class ReconstructedAccuracy:
    """What executors run: counts in, accuracy on the whole search split out, as score too.

    Args:
        images: (N, C, H, W) of the train split; None: plans are measured as they are cut.
        check: called between layers; raises to stop.
    """

    def __init__(
        self,
        problem: SearchProblem,
        images: Tensor | None,
        search: Images,
        max_bytes: int,
        check: Check = lambda: None,
    ) -> None:
        self.problem, self.images, self.search = problem, images, search
        self.max_bytes, self.check = max_bytes, check

    @classmethod
    def of(
        cls,
        problem: SearchProblem,
        splits: Splits,
        settings: ReconstructConfig,
        check: Check = lambda: None,
    ) -> ReconstructedAccuracy:
        """With the images and the memory that stage reconstruct takes."""
        images = None
        if settings.images:
            images, _ = splits.train.take(settings.images, seed=problem.seed)
        return cls(problem, images, splits.search, settings.memory_mb << 20, check)

    def __call__(self, counts: Counts, thresholds: Sequence[float] = ()) -> Outcome:
        """Cut, reconstruct and score counts (G,); there are no rungs."""
        start, problem = time.perf_counter(), self.problem
        model, graph = problem.network.model, problem.network.graph
        plan = ChannelPlan(problem.ranking.keep(counts), {})
        network = cut(model, graph, plan).to(best_device())
        if self.images is not None and (counts < problem.space.sizes).any():
            network = reconstruct_layers(
                network,
                model,
                graph,
                plan,
                self.images,
                seed=problem.seed,
                max_bytes=self.max_bytes,
                progress=lambda done, total: self.check(),
            ).model
        found = accuracy(network, self.search)
        seconds = time.perf_counter() - start
        return Outcome(found, (), found, len(self.search), False, seconds)
