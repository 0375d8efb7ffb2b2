"""The loop: it learns, repeats and resumes to the byte, stops when asked and before any damage."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from tiny_training import images, net, recipe
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.data.augment import Augment
from pipeline.errors import Refused
from pipeline.training import (
    Callbacks,
    Checkpoint,
    Fit,
    Recipe,
    Stopped,
    accuracy,
    fit,
    learning_rate,
)
from pipeline.training.small_convolutions import DepthwiseSum

SEARCH = images(40, seed=9)


def run(model: nn.Module, settings: Recipe, seed: int = 1, **more: Any) -> Fit:
    return fit(model, images(), SEARCH, settings, seed=seed, **more)


def same(a: nn.Module, b: nn.Module) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def test_it_learns_and_keeps_the_best_epoch() -> None:
    model = net()
    fitted = run(model, recipe(epochs=5))
    assert fitted.best_accuracy == max(row["accuracy"] for row in fitted.history) >= 0.9
    assert accuracy(model, SEARCH) == fitted.best_accuracy
    assert fitted.steps == 5 * 6
    assert [row["epoch"] for row in fitted.history] == [1, 2, 3, 4, 5]
    assert not model.training


def test_best_epoch_is_by_search_accuracy_not_the_last() -> None:
    """From the third epoch on it is taught the opposite."""
    model, calls = net(), []

    def spoil_later(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        calls.append(1)
        return F.cross_entropy(model(x), y if len(calls) <= 12 else 1 - y)

    fitted = run(
        model, recipe(epochs=6, lr=0.1, schedule="linear", warmup=0.0), objective=spoil_later
    )
    assert fitted.history[-1]["accuracy"] < fitted.best_accuracy
    assert fitted.best_epoch < 6
    assert accuracy(model, SEARCH) == fitted.best_accuracy


SETTINGS = [
    {},
    {"ema": 0.9, "augment": Augment(crop=1, flip=False, cutout=2)},
    {"augment": Augment(mixup=0.4), "schedule": "linear"},
    {"precision": "bf16"},
]


@pytest.mark.parametrize("changes", SETTINGS)
def test_same_seed_same_bytes_whatever_the_callers_random_state(changes: dict[str, Any]) -> None:
    a, b, c = net(), net(), net()
    run(a, recipe(**changes))
    torch.manual_seed(777)
    state = torch.get_rng_state()
    run(b, recipe(**changes))
    assert torch.equal(torch.get_rng_state(), state)
    assert same(a, b)
    run(c, recipe(**changes), seed=2)
    assert not same(a, c)


@pytest.mark.parametrize("changes", SETTINGS)
@pytest.mark.parametrize("stop_after", [1, 6, 8, 17])
def test_stopped_and_resumed_ends_in_the_same_bytes(
    changes: dict[str, Any], stop_after: int
) -> None:
    whole, part = net(), net()
    expected = run(whole, recipe(**changes))
    saved: list[Checkpoint] = []
    steps = iter(range(1, 100))
    with pytest.raises(Stopped):
        run(
            part,
            recipe(**changes),
            callbacks=Callbacks(save=saved.append, stopping=lambda: next(steps) >= stop_after),
        )
    assert saved[-1].progress["step"] == stop_after
    resumed = net(seed=5)  # everything must come from the checkpoint
    assert run(resumed, recipe(**changes), resume=saved[-1]) == expected
    assert same(resumed, whole)


def test_best_epoch_before_the_stop_survives_the_resume() -> None:
    def taught_the_opposite_after(step: int) -> Any:
        calls = [step]

        def objective(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            calls[0] += 1
            return F.cross_entropy(model(x), y if calls[0] <= 12 else 1 - y)

        return objective

    settings = recipe(epochs=6, lr=0.1, schedule="linear", warmup=0.0)
    whole, resumed, saved = net(), net(seed=5), []
    expected = run(whole, settings, objective=taught_the_opposite_after(0))
    steps = iter(range(1, 100))
    callbacks = Callbacks(save=saved.append, stopping=lambda: next(steps) >= 26)
    with pytest.raises(Stopped):
        run(net(), settings, objective=taught_the_opposite_after(0), callbacks=callbacks)
    assert (
        run(resumed, settings, objective=taught_the_opposite_after(26), resume=saved[-1])
        == expected
    )
    assert expected.best_epoch <= 4
    assert same(resumed, whole)


def test_saves_at_every_epoch_and_by_time() -> None:
    epochs: list[Checkpoint] = []
    run(net(), recipe(), callbacks=Callbacks(save=epochs.append))
    assert [c.progress["step"] for c in epochs] == [6, 12, 18]
    steps: list[Checkpoint] = []
    run(net(), recipe(epochs=1), callbacks=Callbacks(save=steps.append, save_seconds=0.0))
    assert {c.progress["step"] for c in steps} == set(range(1, 7))


def test_checkpoint_is_a_copy() -> None:
    saved: list[Checkpoint] = []
    run(net(), recipe(), callbacks=Callbacks(save=saved.append))
    assert not torch.equal(saved[0].tensors["model.0.weight"], saved[1].tensors["model.0.weight"])


def test_nan_loss_stops_with_the_step_and_good_weights_kept() -> None:
    model, calls, saved = net(), [], []

    def bad(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        calls.append(1)
        return F.cross_entropy(model(x), y) * (math.nan if len(calls) == 8 else 1)

    with pytest.raises(Refused, match="diverged at step 8 of 18: loss nan"):
        run(model, recipe(), objective=bad, callbacks=Callbacks(save=saved.append))
    assert saved[-1].progress["step"] == 6
    assert all(t.isfinite().all() for t in saved[-1].tensors.values())
    assert all(p.isfinite().all() for p in model.parameters())


def test_infinite_gradient_of_a_finite_loss_stops_too() -> None:
    def steep(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return torch.sqrt(model(x).sum() * 0)

    model = net()
    before = {name: p.clone() for name, p in model.named_parameters()}
    with pytest.raises(Refused, match="diverged at step 1"):
        run(model, recipe(), objective=steep)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_statistics_that_overflow_stop_it_though_the_loss_is_finite() -> None:
    """A batch norm in training normalises by its batch: only evaluation would show the damage."""
    model, calls, saved = net(), [], []

    def overflowing(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) == 8:
            with torch.no_grad():
                model[1].running_var.fill_(math.inf)
        return F.cross_entropy(model(x), y)

    with pytest.raises(
        Refused, match=r"diverged by step 12 of 18: 1\.running_var holds NaN or infinity"
    ):
        run(model, recipe(), objective=overflowing, callbacks=Callbacks(save=saved.append))
    assert [c.progress["step"] for c in saved] == [6]


def test_progress_tells_epoch_loss_speed_and_time_left() -> None:
    seen: list[tuple[int, int, dict[str, Any]]] = []
    callbacks = Callbacks(
        progress=lambda done, total, **f: seen.append((done, total, f)), progress_seconds=0.0
    )
    run(net(), recipe(epochs=2), callbacks=callbacks)
    done, total, fields = seen[-1]
    assert (done, total) == (12, 12)
    assert fields.keys() == {"epoch", "loss", "images_per_s", "eta_s", "accuracy"}
    assert fields["eta_s"] == 0.0
    assert fields["images_per_s"] > 0


def test_what_goes_on_at_the_end_of_an_epoch_claims_no_time_left() -> None:
    saved: list[Checkpoint] = []
    steps = iter(range(1, 100))
    stopped = Callbacks(save=saved.append, stopping=lambda: next(steps) >= 6)
    with pytest.raises(Stopped):
        run(net(), recipe(epochs=2), callbacks=stopped)
    seen: list[tuple[int, dict[str, Any]]] = []
    callbacks = Callbacks(
        progress=lambda done, total, **fields: seen.append((done, fields)), progress_seconds=0.0
    )
    run(net(), recipe(epochs=2), callbacks=callbacks, resume=saved[-1])
    assert seen[0][0] == 6
    assert "eta_s" not in seen[0][1]
    assert seen[-1][1]["eta_s"] == 0.0


def test_batch_larger_than_the_data_and_leftover_images() -> None:
    assert fit(net(), images(10), SEARCH, recipe(epochs=2), seed=0).steps == 2
    assert fit(net(), images(33), SEARCH, recipe(epochs=1), seed=0).steps == 2


def test_frozen_parameters_do_not_move_and_vectors_are_not_decayed() -> None:
    model = net(dropout=0.0)
    model[0].weight.requires_grad_(False)
    before = model[0].weight.clone()
    bias = model[5].bias.detach().clone()
    heavy = recipe(epochs=1, weight_decay=1.0, lr=0.5)
    run(model, heavy, objective=lambda m, x, y: (m(x) * 0).sum())
    assert torch.equal(model[0].weight, before)
    assert torch.equal(model[5].bias, bias)
    assert model[5].weight.abs().max() < 0.05


def test_learning_rate_rises_and_falls_to_nothing() -> None:
    rates = [learning_rate(recipe(lr=1.0, warmup=0.2), step, 100) for step in range(100)]
    assert rates[:20] == pytest.approx([(i + 1) / 20 for i in range(20)])
    assert rates[20] == 1.0
    assert rates[60] == pytest.approx(0.5)
    assert 0 < rates[-1] < 0.001
    assert all(a >= b for a, b in pairwise(rates[20:]))
    assert learning_rate(recipe(lr=1.0, warmup=0.0), 0, 100) == 1.0
    assert learning_rate(recipe(lr=1.0, warmup=1.0), 99, 100) == 1.0


def test_depthwise_convolutions_train_in_the_quicker_form_and_are_what_they_were_after() -> None:
    """Also where training ends by an exception."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=4, padding=1), nn.Conv2d(4, 4, 3, padding=1, groups=4),
        nn.Flatten(), nn.LazyLinear(2),
    )  # fmt: skip
    model(next(images().batches(2))[0])
    kinds, met = [type(module) for module in model], []

    def watch(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        met.append(type(model[1]))
        if len(met) == 3:
            raise Stopped
        return F.cross_entropy(model(x), y)

    with pytest.raises(Stopped):
        run(model, recipe(epochs=1), objective=watch)
    assert met == [DepthwiseSum] * 3
    assert [type(module) for module in model] == kinds
