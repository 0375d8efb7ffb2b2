"""The sequential form: one pass of the cut network over all images, in which every weight is
refitted just before it is applied.

    original   x ── conv1 ──▶ Y1 ── bn1 ── conv2 ──▶ Y2 …      wanted rows, recorded before
    cut        x ── conv1'──▶    ── bn1'── conv2'──▶    …      each fitted on what it sees by then

So a layer sees the errors that earlier ones leave, and makes up for them. One whose result is added
to another branch is asked for the *sum*: what that branch has lost by then comes on top of what it
should give. Running means follow in the same pass. Variances stay: a regression's output varies
less than its target, and dividing by less would blow up the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from stages.reconstruct.forward import Forward, Listener, Use
from stages.reconstruct.least_squares import Fitted, fit
from stages.reconstruct.operators import LinearMap, Norm, read
from stages.reconstruct.patches import Sampling, joined, patches
from stages.reconstruct.targets import Targets, channel_mean

FLAT = 1e-3  # of the median gain: what a batch norm damps more than that is not asked back


@dataclass(frozen=True)
class LayerResult:
    """What became of one layer; errors are squares on held-out images, over the variance of the
    original's output.

    Attributes:
        kept: whether the weights of the cut stay, for `reason`. errors are None where the layer
        could not be looked at. ridge: the chosen one. rows: of the system.
    """

    name: str
    error_before: float | None
    error_after: float | None
    kept: bool
    reason: str = ""
    ridge: float = 0.0
    rows: int = 0


@dataclass
class Refit:
    """A pass over the cut network, and what it has found so far.

    Attributes:
        gains: of the batch norm behind a layer, by the name of its running mean; channels that
        stay. fixed: weights that must stay, and why. only: weights that are refitted, of all others
        nothing but means follows; None: all are. note: shown what a layer sees, before it is
        refitted. changed: refitted tensors by canonical name.
        settled: names that are final. lost: mean of what a batch norm's branch makes up for.
    """

    cut: nn.Module
    inputs: tuple[Any, ...]
    forward: Forward
    targets: Targets
    sampling: Sampling
    gains: Mapping[str, Tensor]
    fixed: Mapping[str, str]
    progress: Callable[[int, int], None]
    only: Collection[str] | None = None
    note: Callable[[Use, LinearMap, Tensor], None] = lambda use, op, rows: None
    changed: dict[str, Tensor] = field(default_factory=dict)
    results: dict[str, LayerResult] = field(default_factory=dict)
    settled: set[str] = field(default_factory=set)
    lost: dict[str, Tensor] = field(default_factory=dict)

    def run(self) -> None:
        """Fit everything. After a weight that is applied several times the pass starts anew: its
        first applications ran with the old one.
        """
        while True:
            try:
                with torch.no_grad(), _Pass(self):
                    self.cut(*self.inputs)
                return
            except _Again:
                continue

    def settle(self, use: Use) -> None:
        """Make `use` final; raises _Again if it was applied before."""
        self.settled.add(use.name)
        self.progress(len(self.settled), len(self.forward.names))
        if use.turn == 0:
            return
        first = self.forward.first(use.name)
        for between in self.forward.uses:
            single = self.forward.turns(between.name) == 1
            # what lies between was fitted on what the old weight made
            if single and first.call < between.call < use.call:
                self.settled.discard(between.name)
                self.changed.pop(between.name, None)
                self.changed.pop(between.bias, None)
        raise _Again


class _Again(Exception):
    """The pass has to start from the front."""


class _Pass(Listener):
    def __init__(self, state: Refit) -> None:
        super().__init__(state.cut)
        self.state = state
        self.uses = {(use.name, use.turn): use for use in state.forward.uses}
        self.turns: dict[str, int] = {}
        self.rows: dict[str, list[tuple[Tensor, Tensor]]] = {}
        self.drifts: dict[str, list[Tensor]] = {}
        self.partners = state.forward.partners
        self.values: dict[int, Tensor] = {}

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        number, op = self.number, read(func, args, kwargs)
        use = self._use(op)
        if use and use.name not in self.state.settled:
            if isinstance(op, Norm):
                self._follow(use, op)
            elif isinstance(op, LinearMap) and self._wanted(use):
                self._refit(use, op)
        # its last use: activations of all images are let go
        if use and self.partners.get(use.partner) == use.call:
            self.values.pop(use.partner, None)
        out = func(*self._current(args), **{k: self._current(v) for k, v in kwargs.items()})
        if number in self.partners:
            self.values[number] = out
        return out

    def _wanted(self, use: Use) -> bool:
        """Whether its weight is refitted, or else its bias has to follow: no norm behind does."""
        return self._fitted(use) or bool(use.bias and not use.norm)

    def _fitted(self, use: Use) -> bool:
        return self.state.only is None or use.name in self.state.only

    def _use(self, op: LinearMap | Norm | None) -> Use | None:
        name = self.name(op.named) if op is not None else ""
        turn = self.turns.get(name, 0)
        self.turns[name] = turn + 1
        return self.uses.get((name, turn))

    def _current(self, value: Any) -> Any:
        """A tensor, or several, as refitted."""
        if isinstance(value, (tuple, list)):
            return type(value)(self._current(item) for item in value)
        name = self.name(value) if isinstance(value, Tensor) else ""
        return self.state.changed.get(name, value)

    def _refit(self, use: Use, op: LinearMap) -> None:
        """Fit one layer; where it is applied again, only for the time being."""
        state, parts = self.state, self.rows.setdefault(use.name, [])
        parts.append(self._system(use, op))
        last = use.turn + 1 == state.forward.turns(use.name)
        # `fit` overwrites x, and this one is wanted again
        x, y = joined(parts, state.sampling) if last else (parts[-1][0].clone(), parts[-1][1])
        if self._fitted(use):
            state.note(use, op, x)
        found = fit(
            x, y, op.matrix(), state.sampling.held_out(x.shape[1]),
            free_mean=use.free_mean, fixed=state.fixed.get(use.name, ""),
            only_mean=not self._fitted(use),
        )  # fmt: skip
        self._take(use, op, found)
        if last:
            del self.rows[use.name]
            state.results[use.name] = LayerResult(
                layer_name(use.name), found.before, found.after, not found.changed, found.reason,
                found.ridge, x.shape[1],
            )  # fmt: skip
            state.settle(use)

    def _system(self, use: Use, op: LinearMap) -> tuple[Tensor, Tensor]:
        """Rows (groups, n, unknowns) of what the layer sees, and (groups, n, out) of what its
        matrix should make of them.
        """
        target = self.state.targets.of(use)
        positions = self.state.sampling.positions(use, len(op.input))
        wanted = target.rows
        have = self.values.get(use.partner)
        if have is not None and target.partner is not None:
            lost = target.partner - positions.of(have, op.channel_dim)
            wanted = wanted + self._undone(use, lost)
        if op.bias is not None:
            wanted = wanted - op.bias
        y = wanted.reshape(len(wanted), op.groups, -1).transpose(0, 1)
        return patches(op, positions), y

    def _undone(self, use: Use, lost: Tensor) -> Tensor:
        """What the other branch has lost, in units of this layer's output, before the norm."""
        if use.norm is None:
            return lost
        gain = self.state.gains[use.norm.mean]
        usable = gain.abs() > FLAT * gain.abs().median()
        lost = lost * torch.where(usable, 1 / torch.where(usable, gain, 1), 0)
        self.state.lost[use.norm.mean] = lost.mean(0)
        return lost

    def _take(self, use: Use, op: LinearMap, found: Fitted) -> None:
        changed = self.state.changed
        for name in (use.name, use.bias):  # as an earlier application left them
            changed.pop(name, None)
        if found.changed:
            changed[use.name] = op.weight_of(found.matrix)
        if op.bias is not None and use.bias and found.shift is not None:
            changed[use.bias] = op.bias + found.shift.reshape(-1)

    def _follow(self, use: Use, op: Norm) -> None:
        """Shift a running mean by as much as the mean of what the batch norm sees has moved."""
        state = self.state
        drift = channel_mean(op.input) - state.targets.of(use).rows
        # what the layer gives for the other branch's sake is no drift
        self.drifts.setdefault(use.name, []).append(drift - state.lost.get(use.name, 0))
        if use.turn + 1 < state.forward.turns(use.name):
            return
        total = torch.stack(self.drifts.pop(use.name)).mean(0)
        if bool(torch.isfinite(total).all()) and bool(total.any()):
            state.changed[use.name] = op.mean + total
        state.settle(use)


def layer_name(weight: str) -> str:
    """Module path of the layer that holds a weight."""
    return weight.removesuffix(".weight")
