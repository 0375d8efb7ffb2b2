"""The sequential form: one pass of the cut network over all images, in which every weight is
refitted just before it is applied.

    original   x ── conv1 ──▶ Y1 ── bn1 ── conv2 ──▶ Y2 …      wanted rows, recorded once
    cut        x ── conv1 ──▶    ── bn1'── conv2'──▶    …      each fitted on what it sees by then

So a layer's inputs carry the errors that are left of earlier layers, and it makes up for them. A
layer whose result is added to another branch is asked for the *sum*: what that branch has lost by
then is added to what it should give. Running means follow in the same pass; variances stay, because
a regression's output varies less than its target, and dividing by less would blow the rest up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.channels.surgery import named_tensors
from stages.reconstruct.forward import Forward, Listener, NormNames, Use
from stages.reconstruct.least_squares import fit
from stages.reconstruct.operators import LinearMap, Norm, read
from stages.reconstruct.patches import Positions, patches

FLAT = 1e-3  # of the median gain; a batch norm's smaller gains are not divided by


@dataclass(frozen=True)
class Sampling:
    """How many rows a layer's system gets.

    Attributes:
        samples: along the first dimension of the inputs. rows: at least so many, `per_unknown` for
        each unknown, and never more numbers than `numbers` in one system's rows.
    """

    samples: int
    seed: int
    rows: int = 8192
    per_unknown: int = 8
    grouped_rows: int = 1024
    numbers: int = 1 << 28

    def positions(self, use: Use, samples: int) -> Positions:
        """The same for the original and the cut network."""
        least = self.rows if use.groups < 32 else self.grouped_rows
        wanted = max(least, self.per_unknown * use.unknowns)
        most = self.numbers // max(1, use.unknowns * use.groups)
        return Positions.draw(
            samples, use.space, min(wanted, most), self.seed + 7919 * use.call
        )


@dataclass(frozen=True)
class LayerResult:
    """Errors are held-out squares over the variance of the original's output.

    `kept`: the weights are those of the cut, for `reason`.
    """

    name: str
    error_before: float
    error_after: float
    kept: bool
    reason: str = ""
    ridge: float = 0.0
    rows: int = 0


class _Enough(Exception):
    """The window of recorded layers is full."""


class _Restart(Exception):
    """A weight that is applied several times was fitted; what came between must be fitted anew."""


class Targets:
    """What the original gives at the sampled positions, recorded in windows of bounded size."""

    def __init__(
        self,
        original: nn.Module,
        inputs: tuple[Any, ...],
        forward: Forward,
        kept: Mapping[str, Tensor],
        sampling: Sampling,
        max_bytes: int,
    ) -> None:
        self.original, self.inputs, self.forward = original, inputs, forward
        self.kept, self.sampling, self.max_bytes = kept, sampling, max_bytes
        self.rows: dict[tuple[str, int], Tensor] = {}
        self.partners: dict[tuple[str, int], Tensor] = {}

    def of(self, use: Use) -> tuple[Tensor, Tensor | None]:
        """Rows (n, kept outputs), or the mean (kept channels,) of a batch norm's input; and the
        partner's rows.
        """
        key = use.name, use.turn
        if key not in self.rows:
            self.rows.clear()
            self.partners.clear()
            recorder = _Recorder(self, use.call)
            try:
                with torch.no_grad(), recorder:
                    self.original(*self.inputs)
            except _Enough:
                pass
        return self.rows[key], self.partners.get(key)


class _Recorder(Listener):
    def __init__(self, targets: Targets, first: int) -> None:
        super().__init__(targets.original)
        self.targets, self.first, self.bytes = targets, first, 0
        self.uses = {use.call: use for use in targets.forward.uses if use.call >= first}
        self.wanted = {use.partner for use in self.uses.values() if use.partner >= 0}
        self.values: dict[int, Tensor] = {}

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        number = self.number
        use = self.uses.get(number)
        op = read(func, args, kwargs) if use else None
        kept = self.targets.kept.get(use.name) if use else None
        if use and isinstance(op, Norm):
            self._note(use, _channel_mean(op.input, kept))
        partner = self.values.get(use.partner) if use else None
        out = func(*args, **kwargs)
        if use and isinstance(op, LinearMap):
            positions = self.targets.sampling.positions(use, _samples(out))
            self._note(use, _picked(positions.of(out, op.channel_dim), kept))
            if partner is not None:
                rows = _picked(positions.of(partner, op.channel_dim), kept)
                self.targets.partners[use.name, use.turn] = rows
                self.bytes += rows.numel() * rows.element_size()
        if number in self.wanted:
            self.values[number] = out
        return out

    def _note(self, use: Use, rows: Tensor) -> None:
        size = rows.numel() * rows.element_size()
        if self.bytes and self.bytes + size > self.targets.max_bytes:
            raise _Enough
        self.bytes += size
        self.targets.rows[use.name, use.turn] = rows


@dataclass
class Refit:
    """The state of the pass: tensors refitted so far by canonical name, and a result a layer."""

    cut: nn.Module
    inputs: tuple[Any, ...]
    forward: Forward
    targets: Targets
    sampling: Sampling
    scales: Mapping[str, Tensor]
    compensate: bool = True
    changed: dict[str, Tensor] = field(default_factory=dict)
    results: dict[str, LayerResult] = field(default_factory=dict)
    settled: set[str] = field(default_factory=set)

    def run(self) -> None:
        """Fit everything; weights that are applied several times make the pass start again."""
        while True:
            try:
                with torch.no_grad(), _Pass(self):
                    self.cut(*self.inputs)
            except _Restart:
                continue
            return


class _Pass(Listener):
    def __init__(self, state: Refit) -> None:
        super().__init__(state.cut)
        self.state = state
        self.uses = {(use.name, use.turn): use for use in state.forward.uses}
        self.last = {use.name: use.turn for use in state.forward.uses}
        self.turns: dict[str, int] = {}
        self.rows: dict[str, list[tuple[Tensor, Tensor]]] = {}
        self.drifts: dict[str, list[Tensor]] = {}
        self.offsets: dict[str, Tensor] = {}
        self.wanted = {use.partner for use in state.forward.uses if use.partner >= 0}
        self.values: dict[int, Tensor] = {}

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        number, op = self.number, read(func, args, kwargs)
        use = self._use(op)
        if use and use.name not in self.state.settled:
            if isinstance(op, LinearMap):
                self._refit(use, op)
            elif isinstance(op, Norm):
                self._follow(use, op)
        out = func(*self._current(args), **{k: self._current(v) for k, v in kwargs.items()})
        if number in self.wanted and isinstance(out, Tensor):
            self.values[number] = out
        return out

    def _use(self, op: LinearMap | Norm | None) -> Use | None:
        if op is None:
            return None
        name = self.name(op.weight if isinstance(op, LinearMap) else op.mean)
        turn = self.turns.get(name, 0)
        self.turns[name] = turn + 1
        return self.uses.get((name, turn))

    def _current(self, tree: Any) -> Any:
        """Arguments with the tensors that were refitted in place of the cut network's."""
        if isinstance(tree, (tuple, list)):
            return type(tree)(self._current(item) for item in tree)
        name = self.name(tree) if isinstance(tree, Tensor) else ""
        return self.state.changed.get(name, tree)

    def _refit(self, use: Use, op: LinearMap) -> None:
        wanted, partner = self.state.targets.of(use)
        positions = self.state.sampling.positions(use, op.input.shape[0])
        bias = self._current(op.bias) if op.bias is not None else None
        if partner is not None and self.state.compensate:
            wanted = wanted + self._lost(use, op, positions, partner)
        rows = wanted if bias is None else wanted - bias
        y = rows.reshape(len(rows), op.groups, -1).transpose(0, 1)
        self.rows.setdefault(use.name, []).append((patches(op, positions), y))
        if use.turn < self.last[use.name]:
            return
        x, y = joined(self.rows.pop(use.name), self.state.sampling.samples)
        free = bool(use.bias) or use.norm is not None
        matrix = op.matrix(self._current(op.weight))
        held = held_rows(x.shape[1], self.state.sampling.samples)
        found = fit(x, y, matrix, held, free)
        if found.matrix is not matrix:
            self.state.changed[use.name] = op.weight_of(found.matrix)
        if use.bias and bias is not None and found.before != found.after:
            self.state.changed[use.bias] = bias + found.shift.reshape(-1)
        self.state.results[use.name] = LayerResult(
            use.name.removesuffix(".weight"),
            found.before,
            found.after,
            found.matrix is matrix,
            found.reason,
            found.ridge,
            x.shape[1],
        )
        self._settle(use)

    def _lost(self, use: Use, op: LinearMap, positions: Positions, partner: Tensor) -> Tensor:
        """What the branch that is added behind has lost, in units of this layer's output."""
        have = self.values.get(use.partner)
        if have is None:
            return torch.zeros_like(partner)
        lost = partner - positions.of(have, op.channel_dim)
        if use.norm is None:
            return lost
        gain = self.state.scales[use.norm.mean]
        usable = gain.abs() > FLAT * gain.abs().median()
        lost = lost * torch.where(usable, 1 / torch.where(usable, gain, 1), 0)
        self.offsets[use.norm.mean] = lost.mean(0)
        return lost

    def _follow(self, use: Use, op: Norm) -> None:
        """Shift a running mean by as much as the mean of what it sees has moved."""
        wanted, _ = self.state.targets.of(use)
        drift = _channel_mean(op.input, None) - wanted - self.offsets.get(use.name, 0)
        self.drifts.setdefault(use.name, []).append(drift)
        if use.turn < self.last[use.name]:
            return
        total = torch.stack(self.drifts.pop(use.name)).mean(0)
        if bool(torch.isfinite(total).all()):
            self.state.changed[use.name] = op.mean + total.to(op.mean.dtype)
        self._settle(use)

    def _settle(self, use: Use) -> None:
        """Where a weight was applied before, the pass has to start again with the new one."""
        state = self.state
        state.settled.add(use.name)
        if use.turn == 0:
            return
        first = self.uses[use.name, 0].call
        between = {u.name for u in state.forward.uses if first < u.call < use.call}
        between -= {use.name}
        for name in between & state.settled:
            if self.uses[name, 0].call > first and self.last[name] == 0:
                state.settled.discard(name)
                state.changed.pop(name, None)
                state.changed.pop(self.uses[name, 0].bias, None)
        raise _Restart


def held_rows(rows: int, samples: int) -> int:
    """Rows of the last quarter of the images."""
    return rows // samples * max(1, samples // 4) if rows >= samples else max(1, rows // 4)


def joined(parts: list[tuple[Tensor, Tensor]], samples: int) -> tuple[Tensor, Tensor]:
    """One system of all applications, the rows that are held out last."""
    if len(parts) == 1:
        return parts[0]
    split = [len_ - held_rows(len_, samples) for len_ in (x.shape[1] for x, _ in parts)]
    joined = []
    for which in (0, 1):
        first = [part[which][:, :at] for part, at in zip(parts, split, strict=True)]
        rest = [part[which][:, at:] for part, at in zip(parts, split, strict=True)]
        joined.append(torch.cat(first + rest, 1))
    return joined[0], joined[1]


def _samples(out: Tensor) -> int:
    return out.shape[0]


def _picked(rows: Tensor, kept: Tensor | None) -> Tensor:
    return rows if kept is None else rows[:, kept.to(rows.device)]


def _channel_mean(values: Tensor, kept: Tensor | None) -> Tensor:
    dims = [dim for dim in range(values.dim()) if dim != 1]
    mean = values.mean(dims, dtype=torch.float64 if values.dtype == torch.float64 else None)
    return mean if kept is None else mean[kept.to(mean.device)]


def gain_of(tensors: Mapping[str, Tensor], norm: NormNames) -> Tensor:
    """γ / σ of a batch norm: what a step of its input is worth behind it."""
    scale = (tensors[norm.var] + norm.eps).rsqrt()
    return scale * tensors[norm.weight] if norm.weight else scale


def scales_of(model: nn.Module, forward: Forward) -> dict[str, Tensor]:
    """`gain_of` every batch norm right behind a layer, by the name of its running mean."""
    tensors = named_tensors(model)
    norms = [use.norm for use in forward.uses if use.norm is not None]
    return {norm.mean: gain_of(tensors, norm).detach() for norm in norms}
