"""What becomes of the layers behind residual branches that go.

    original      trunk ─▶ + b ─▶ conv1  ─▶ … ─▶ conv2  ─▶ + trunk ─▶ …
    without b     trunk ────────▶ conv1' ─▶ … ─▶ conv2' ─▶ + trunk ─▶ …

The layers up to the first one that is added to the trunk are refitted one after the other: those
that read the trunk make up for what they no longer see, and the last one puts what is still missing
into the trunk. All layers behind see nearly what they saw; of them only means follow. That is one
run of the network for a set of branches, and the set counts: a layer that takes over a branch's
part may itself go.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from pipeline.channels.branch import Branch, put_in_place
from pipeline.channels.graph import ChannelGraph
from pipeline.channels.rebuild import named_tensors, rebuild
from stages.reconstruct.forward import Forward, Use, survey
from stages.reconstruct.layer_moments import NOTHING, Behind, LayerMoments, moments_of
from stages.reconstruct.operators import LinearMap
from stages.reconstruct.patches import Sampling
from stages.reconstruct.sequential import Refit
from stages.reconstruct.targets import Targets

IMAGES = 256
ROWS = 4096  # of a layer's system, at least
PER_UNKNOWN = 4
MAX_BYTES = 1 << 30  # of rows that the original's layers give
REMEMBERED = 16  # sets: a search comes back to the latest


class BranchRefits:
    """Refitted tensors of one network for any set of its branches.

    Args:
        model: in eval mode; never changed.
        inputs: a batch of images, or of several inputs.
        forward: survey of the model.
    """

    def __init__(
        self,
        model: nn.Module,
        graph: ChannelGraph,
        inputs: tuple[Any, ...],
        forward: Forward,
        seed: int = 0,
    ) -> None:
        self.model, self.graph, self.inputs, self.forward = model, graph, inputs, forward
        self.sampling = Sampling(len(inputs[0]), seed, ROWS, PER_UNKNOWN, numbers=MAX_BYTES // 32)
        self.targets = Targets(model, inputs, forward, {}, self.sampling, MAX_BYTES)
        tensors = named_tensors(model)
        norms = [use.norm for use in forward.uses if use.norm is not None]
        self.gains = {norm.mean: norm.gain(tensors) for norm in norms}
        self.known: dict[tuple[str, ...], Behind] = {}

    @classmethod
    def of(
        cls, model: nn.Module, graph: ChannelGraph, images: Tensor | tuple[Any, ...], seed: int = 0
    ) -> BranchRefits:
        """From the first of these images, or of several inputs: as many as it takes, and fit."""
        inputs = (images,) if isinstance(images, Tensor) else images
        forward = survey(model, tuple(item[:2] for item in inputs))
        count = min(IMAGES, max(2, forward.affordable(4 * MAX_BYTES)))
        return cls(model, graph, tuple(item[:count] for item in inputs), forward, seed)

    @property
    def names(self) -> list[str]:
        """Canonical names of all tensors that may change."""
        uses = [use for use in self.forward.uses if _alone(self.forward, use)]
        return [name for use in uses for name in (use.name, use.bias) if name]

    def without(self, going: Sequence[Branch]) -> Behind:
        """What layers become when these branches go."""
        key = tuple(branch.id for branch in going)
        if key not in self.known:
            if len(self.known) >= REMEMBERED:
                del self.known[next(iter(self.known))]
            self.known[key] = self._refit(going) if going else NOTHING
        return self.known[key]

    def _refit(self, going: Sequence[Branch]) -> Behind:
        rest = put_in_place(rebuild(self.model, {}, ()), self.graph.stand_ins(going, {})).eval()
        met = self.forward.met_in(survey(rest, tuple(item[:2] for item in self.inputs)))
        only = {name for branch in going for name in _taking_over(self.forward, met, branch)}
        settled = {use.name for use in met.uses if not _alone(met, use)}
        layers: dict[str, LayerMoments] = {}

        def note(use: Use, op: LinearMap, rows: Tensor) -> None:
            held = self.sampling.held_out(rows.shape[1])
            layers[use.name] = moments_of(use, op, rows.clone(), held)

        state = Refit(
            rest, self.inputs, met, self.targets, self.sampling, self.gains, {}, _unseen,
            only=only, note=note, settled=settled,
        )  # fmt: skip
        state.run()
        return Behind(state.changed, layers)

    def __getstate__(self) -> dict[str, Any]:
        # a gigabyte that another process may never need
        targets = Targets(self.model, self.inputs, self.forward, {}, self.sampling, MAX_BYTES)
        return {**self.__dict__, "targets": targets}


def _alone(forward: Forward, use: Use) -> bool:
    """Whether nothing else depends on the tensor of this use."""
    return forward.turns(use.name) == 1 and use.name not in forward.elsewhere


def _taking_over(forward: Forward, met: Forward, branch: Branch) -> Iterator[str]:
    """Weights behind a branch, up to the first layer that is added to something.

    Args:
        met: the uses that are left without this branch, and maybe others.
    """
    order = [use.name for use in forward.uses]
    last = max((at for at, name in enumerate(order) if branch.holds(name)), default=len(order))
    behind = set(order[last + 1 :])
    for use in met.uses:
        if use.name not in behind or use.kind == "norm" or use.depthwise or not _alone(met, use):
            continue
        yield use.name
        if use.partner >= 0:
            return


def _unseen(done: int, total: int) -> None: ...
