"""Accuracy and batch-norm re-estimation leave everything else as it was."""

from __future__ import annotations

import pytest
import torch
from tiny_training import images, net
from torch import nn

from pipeline.system import usable_cores
from pipeline.training import accuracy, reestimate_batchnorm
from pipeline.training.machine import all_cores, faster_precision


class Fixed(nn.Module):
    """Says class 1 for the images whose right half is brighter, unless in training mode."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        right = x[..., 4:].mean((1, 2, 3)) - x[..., :4].mean((1, 2, 3))
        return torch.stack([-right, right], 1) * (-1 if self.training else 1)


def test_accuracy_counts_every_image_once_in_eval_mode() -> None:
    model = Fixed().train()
    assert accuracy(model, images(37), batch_size=8) == 1.0
    assert model.training


def test_accuracy_is_the_share_that_is_right() -> None:
    data = images(40)
    data.labels[:10] = 1 - data.labels[:10]
    assert accuracy(Fixed(), data) == 0.75


def test_reestimated_statistics_are_the_plain_average() -> None:
    model = net()
    model[1].momentum = 0.3
    x = next(images(32).batches(32))[0]
    model[3].eval()
    before = {name: p.clone() for name, p in model.named_parameters()}
    reestimate_batchnorm(model, x.split(8))
    maps = model[0](x)
    torch.testing.assert_close(model[1].running_mean, maps.mean((0, 2, 3)))
    per_batch = torch.stack([part.var((0, 2, 3)) for part in maps.split(8)])
    torch.testing.assert_close(model[1].running_var, per_batch.mean(0))
    assert model[1].momentum == 0.3
    assert model[1].training
    assert not model[3].training
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_reestimation_without_batches_changes_nothing() -> None:
    model = net()
    model[1].running_mean.fill_(0.7)
    reestimate_batchnorm(model, [])
    assert model[1].running_mean.tolist() == pytest.approx([0.7] * 4)


def test_probe_leaves_the_model_alone() -> None:
    model = net()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    state = torch.get_rng_state()
    x, y = next(images(16).batches(16))
    objective = lambda m, x, y: nn.functional.cross_entropy(m(x).float(), y)  # noqa: E731
    assert faster_precision(model, x, y, objective, rounds=1) in ("fp32", "bf16")
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


def test_all_cores_obeys_the_environment_and_restores(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with all_cores() as threads:
        assert threads == before
    monkeypatch.delenv("OMP_NUM_THREADS")
    with all_cores() as threads:
        assert threads == usable_cores() == torch.get_num_threads()
    assert torch.get_num_threads() == before
