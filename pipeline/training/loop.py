"""The training loop that pretraining and distillation share.

Randomness is a function of (seed, epoch) for the data and of (seed, step) for dropout, the learning
rate one of the step. So a state is weights, momentum, averages and two counters, and a resumed run
ends in the same bytes on a CPU.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from pipeline.errors import Refused
from pipeline.system import GOLDEN_GAMMA, splitmix64
from pipeline.training import machine
from pipeline.training.evaluate import accuracy, device_of
from pipeline.training.machine import autocast
from pipeline.training.objectives import Objective, cross_entropy
from pipeline.training.recipe import Recipe, learning_rate
from pipeline.training.small_convolutions import depthwise_sums
from pipeline.training.state import Checkpoint, TrainState

if TYPE_CHECKING:
    from pipeline.data.images import Images


class Stopped(Exception):
    """A stop was asked for; the state has been saved."""


@dataclass(frozen=True)
class Callbacks:
    """What the loop tells its caller; it touches neither disk nor terminal itself.

    Attributes:
        save: keep this state; called at every epoch's end, every `save_seconds` within one, and
            before stopping.
        progress: called with steps done, steps in all, and epoch, loss, accuracy, images_per_s,
            eta_s; at most every `progress_seconds` and at every epoch's end.
        stopping: True: save and stop.
    """

    save: Callable[[Checkpoint], None] = lambda checkpoint: None
    progress: Callable[..., None] = lambda done, total, **fields: None
    stopping: Callable[[], bool] = lambda: False
    save_seconds: float = 30.0
    progress_seconds: float = 0.5


@dataclass(frozen=True)
class Fit:
    """What training reached; the model holds the weights of `best_epoch`.

    Attributes:
        history: one row an epoch: epoch, loss (train mean), accuracy (search split), lr.
        best_accuracy: on the search split, a fraction.
    """

    history: list[dict[str, float]]
    best_epoch: int
    best_accuracy: float
    precision: str
    steps: int
    seconds: float = field(compare=False)


def fit(
    model: nn.Module,
    train: Images,
    search: Images,
    recipe: Recipe,
    *,
    seed: int,
    objective: Objective | None = None,
    resume: Checkpoint | None = None,
    callbacks: Callbacks | None = None,
) -> Fit:
    """Train `model` in place on `train`; keep the epoch that is best on `search`.

    Args:
        objective: cross-entropy with the recipe's label smoothing when absent.
        resume: a state that `callbacks.save` was given for the same recipe, seed and data.
    Raises:
        Refused: loss, gradient or weights are not finite; what was saved before it stays good.
        Stopped: `callbacks.stopping` said so.
    """
    objective = objective or cross_entropy(recipe.label_smoothing)
    callbacks = callbacks or Callbacks()
    with ExitStack() as stack:
        stack.enter_context(machine.all_cores())
        stack.enter_context(torch.random.fork_rng())  # a caller's draws do not depend on our steps
        if device_of(model).type == "cpu":
            stack.enter_context(depthwise_sums(model))
        run = _Run(model, train, search, recipe, seed, objective, callbacks, resume)
        while run.state.epoch < recipe.epochs:
            run.epoch()
        run.state.load_best(model)
    model.eval()
    done = run.state.progress
    return Fit(
        done.history,
        done.best_epoch,
        done.best_accuracy,
        done.precision,
        done.step,
        done.seconds,
    )


class _Run:
    """One call of `fit`."""

    def __init__(
        self,
        model: nn.Module,
        train: Images,
        search: Images,
        recipe: Recipe,
        seed: int,
        objective: Objective,
        callbacks: Callbacks,
        resume: Checkpoint | None,
    ) -> None:
        # on CPUs convolutions are faster channels-last
        self.model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.train, self.search, self.recipe, self.seed = train, search, recipe, seed
        self.objective, self.callbacks = objective, callbacks
        self.device = device_of(model)
        self.batch_size = min(recipe.batch_size, len(train))
        self.steps_per_epoch = len(train) // self.batch_size
        self.total = self.steps_per_epoch * recipe.epochs
        self.state = TrainState(model, sgd(model, recipe), recipe.ema)
        if resume is not None:
            self.state.restore(resume)
        else:
            self.state.progress.precision = self._precision()  # once: a second probe might differ
        self.started = time.perf_counter() - self.state.progress.seconds
        self.saved = self.shown = self.seen_since = time.perf_counter()
        self.seen = 0

    def _precision(self) -> Literal["fp32", "bf16"]:
        if self.recipe.precision != "auto":
            return self.recipe.precision
        x, y = next(self.train.batches(min(64, self.batch_size)))
        return machine.faster_precision(
            self.model, x.to(self.device), y.to(self.device), self.objective
        )

    def epoch(self) -> None:
        """The rest of the current epoch, its score on the search split, and a save."""
        progress, state = self.state.progress, self.state
        done = progress.step - progress.epoch * self.steps_per_epoch
        self.model.train()
        for index, (x, y) in enumerate(self._batches(progress.epoch)):
            if index < done:
                continue  # drawn and thrown away, so that the rest is what it would have been
            self.step(x.to(self.device), y.to(self.device))
            if self.callbacks.stopping():
                self.save()
                raise Stopped
            self._report()
        scored = state.scored_model(self.model)
        score = accuracy(scored, self.search, 256, precision=progress.precision)
        row = {
            "epoch": progress.epoch + 1,
            "loss": progress.loss_sum / self.steps_per_epoch,
            "accuracy": score,
            "lr": learning_rate(self.recipe, progress.step - 1, self.total),
        }
        state.finish_epoch(scored, row)
        self.save()
        self._report(force=True)

    def _batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        return self.train.batches(
            self.batch_size,
            shuffle=True,
            augment=self.recipe.augment,
            generator=torch.Generator().manual_seed(_mix(self.seed, epoch)),
            drop_last=True,  # one image left over raises in a batch norm behind pooling
        )

    def step(self, x: Tensor, y: Tensor) -> None:
        """One update; refuses before it would spoil the weights."""
        progress, optimizer = self.state.progress, self.state.optimizer
        torch.manual_seed(_mix(self.seed, 1_000_000 + progress.step))  # of dropout
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(self.recipe, progress.step, self.total)
        with autocast(self.device, progress.precision):
            loss = self.objective(self.model, x, y)
        loss.backward()
        # one number that is not finite as soon as any entry is not
        norm = torch.nn.utils.get_total_norm(
            [p.grad for p in self.model.parameters() if p.grad is not None]
        )
        value = float(loss.detach())
        if not (math.isfinite(value) and math.isfinite(float(norm))):
            raise self._diverged(
                f"at step {progress.step + 1} of {self.total}: "
                f"loss {value}, gradient norm {float(norm)}"
            )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        self.state.finish_step(self.model, value)
        self.seen += len(x)

    def save(self) -> None:
        """Hand the state over, unless it is not finite."""
        progress = self.state.progress
        progress.seconds = time.perf_counter() - self.started
        checkpoint = self.state.checkpoint(self.model)
        for name, tensor in checkpoint.tensors.items():
            # running statistics overflow before loss and gradient do
            if tensor.is_floating_point() and not tensor.isfinite().all():
                raise self._diverged(
                    f"by step {progress.step} of {self.total}: "
                    f"{name.partition('.')[2]} holds NaN or infinity"
                )
        self.callbacks.save(checkpoint)
        self.saved = time.perf_counter()

    def _diverged(self, where: str) -> Refused:
        hint = "lower the learning rate; the last good checkpoint was kept"
        return Refused(f"training diverged {where}", hint=hint)

    def _report(self, force: bool = False) -> None:
        """Save and show, each where it is due."""
        now, progress = time.perf_counter(), self.state.progress
        if now - self.saved > self.callbacks.save_seconds:
            self.save()
        if not force and now - self.shown < self.callbacks.progress_seconds:
            return
        self.shown = now
        fields: dict[str, Any] = {
            "epoch": min(progress.epoch + 1, self.recipe.epochs),
            "loss": progress.last_loss,
        }
        if self.seen:  # none where it goes on at the end of an epoch: then nobody knows how long
            rate = self.seen / max(1e-9, now - self.seen_since)
            fields["images_per_s"] = rate
            fields["eta_s"] = (self.total - progress.step) * self.batch_size / rate
        if progress.history:
            fields["accuracy"] = progress.history[-1]["accuracy"]
        self.callbacks.progress(progress.step, self.total, **fields)


def sgd(model: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """SGD over the trainable parameters; vectors (biases, norms) are not decayed."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(
        [g for g in groups if g["params"]], lr=recipe.lr, momentum=recipe.momentum, nesterov=True
    )


def _mix(seed: int, counter: int) -> int:
    """One 63-bit seed from two numbers, so that neighbours share nothing."""
    return splitmix64(seed * GOLDEN_GAMMA + counter) >> 1
