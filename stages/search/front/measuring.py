"""How accurate plans are once they are cut and reconstructed, layer by layer, as a run would."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from pipeline.channels.counts import Counts
from pipeline.channels.graph import ChannelGraph
from pipeline.channels.plan import ChannelPlan
from pipeline.channels.surgery import cut
from pipeline.data.images import Images
from pipeline.training.evaluate import accuracy
from stages.reconstruct.engine import reconstruct_layers
from stages.search.evaluation.trial import Outcome
from stages.search.space.ranking import Ranking

Check = Callable[[], None]


class ReconstructedAccuracy:
    """What executors run: counts in, accuracy on the whole search split out, as score too.

    Args:
        model, graph: the whole network.
        ranking: which units stay.
        images: (N, C, H, W) of the train split; None: plans are measured as they are cut.
        check: called between layers; raises to stop.
    """

    def __init__(
        self,
        model: nn.Module,
        graph: ChannelGraph,
        ranking: Ranking,
        images: Tensor | None,
        search: Images,
        *,
        seed: int,
        max_bytes: int,
        check: Check = lambda: None,
    ) -> None:
        self.model, self.graph, self.ranking = model, graph, ranking
        self.images, self.search, self.seed = images, search, seed
        self.max_bytes, self.check = max_bytes, check

    def __call__(self, counts: Counts, thresholds: Sequence[float] = ()) -> Outcome:
        """Cut, reconstruct and score counts (G,); there are no rungs."""
        start = time.perf_counter()
        plan = ChannelPlan.of(self.graph, self.ranking.keep(counts))
        network = cut(self.model, self.graph, plan)
        if self.images is not None and self._cuts(plan):
            network = reconstruct_layers(
                network,
                self.model,
                self.graph,
                plan,
                self.images,
                seed=self.seed,
                max_bytes=self.max_bytes,
                progress=lambda done, total: self.check(),
            ).model
        found = accuracy(network, self.search)
        seconds = time.perf_counter() - start
        return Outcome(found, (), found, len(self.search), False, seconds)

    def _cuts(self, plan: ChannelPlan) -> bool:
        return bool(plan.drop) or any(
            len(units) < self.graph[group].size for group, units in plan.keep.items()
        )
