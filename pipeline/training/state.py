"""The state of a training run between two steps, as named tensors and plain JSON data."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn


@dataclass
class Progress:
    """The part of the state that is numbers.

    Attributes:
        epoch, step: finished ones.
        loss_sum: of the steps of the current epoch.
        best_accuracy: on the search split, of `best_epoch`; -1 before the first epoch's end.
        seconds: spent training, over all processes that took part.
        history: one row an epoch (`Fit.history`).
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    last_loss: float = 0.0
    best_epoch: int = 0
    best_accuracy: float = -1.0
    precision: Literal["fp32", "bf16"] = "fp32"
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Checkpoint:
    """What `TrainState.restore` needs.

    Attributes:
        tensors: `model.*` parameters and buffers, `momentum.*`, `ema.*` and `best.*` (absent until
            there are any).
        progress: JSON-able fields of Progress.
    """

    tensors: dict[str, Tensor]
    progress: dict[str, Any]


class TrainState:
    """Optimizer, averaged weights, best weights and counters of one run.

    Args:
        ema: decay a step of the averaged weights; 0: none are kept.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.SGD, ema: float) -> None:
        self.optimizer = optimizer
        self.names = {id(p): name for name, p in model.named_parameters()}
        self.model = model
        self.decay = ema
        self.average = copy.deepcopy(model).requires_grad_(False) if ema else None
        self.best: dict[str, Tensor] = {}
        self.progress = Progress()

    @property
    def epoch(self) -> int:
        return self.progress.epoch

    def finish_step(self, model: nn.Module, loss: float) -> None:
        """Count a step and fold the new weights into the average."""
        progress = self.progress
        progress.step += 1
        progress.loss_sum += loss
        progress.last_loss = loss
        if self.average is not None:
            # In the beginning the average follows faster, or it would hold on to random weights.
            decay = min(self.decay, (1 + progress.step) / (10 + progress.step))
            _fold(self.average, model, decay)

    def scored_model(self, model: nn.Module) -> nn.Module:
        """The network whose accuracy counts: the average when there is one."""
        return model if self.average is None else self.average

    def finish_epoch(self, scored: nn.Module, row: dict[str, float]) -> None:
        """Count an epoch, and keep the weights of `scored` where none was more accurate."""
        progress = self.progress
        progress.epoch += 1
        progress.loss_sum = 0.0
        progress.history.append(row)
        if row["accuracy"] >= progress.best_accuracy:  # of equal ones the later: smaller steps
            progress.best_accuracy, progress.best_epoch = row["accuracy"], progress.epoch
            self.best = {name: tensor.clone() for name, tensor in scored.state_dict().items()}

    def load_best(self, model: nn.Module) -> None:
        """Give the model the best epoch's weights."""
        if self.best:
            model.load_state_dict(self.best)

    def checkpoint(self, model: nn.Module) -> Checkpoint:
        """A copy of everything."""
        tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
        for parameter, slot in self.optimizer.state.items():
            tensors[f"momentum.{self.names[id(parameter)]}"] = slot["momentum_buffer"]
        if self.average is not None:
            tensors |= {f"ema.{name}": tensor for name, tensor in self.average.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best.items()}
        return Checkpoint(
            {name: tensor.detach().clone() for name, tensor in tensors.items()},
            asdict(self.progress),
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from a copy that `checkpoint` made for the same network and recipe."""
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "momentum": {}, "ema": {}, "best": {}}
        for name, tensor in checkpoint.tensors.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = tensor
        self.model.load_state_dict(parts["model"])
        self._restore_momentum(parts["momentum"])
        if self.average is not None:
            self.average.load_state_dict(parts["ema"])
        device = next(iter(self.model.state_dict().values())).device
        self.best = {name: tensor.to(device) for name, tensor in parts["best"].items()}
        self.progress = Progress(**copy.deepcopy(checkpoint.progress))

    def _restore_momentum(self, momenta: Mapping[str, Tensor]) -> None:
        for name, parameter in self.model.named_parameters():
            if name in momenta:
                # laid out as the parameter is: another layout adds up in another order
                buffer = torch.empty_like(parameter).copy_(momenta[name].to(parameter.device))
                self.optimizer.state[parameter]["momentum_buffer"] = buffer


def _fold(average: nn.Module, model: nn.Module, decay: float) -> None:
    with torch.no_grad():
        for mine, other in zip(_values(average), _values(model), strict=True):
            if mine.is_floating_point():
                mine.lerp_(other, 1 - decay)
            else:
                mine.copy_(other)  # counters are not averaged


def _values(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]
