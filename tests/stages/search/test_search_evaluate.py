"""A candidate is what `prune` would cut, and scoring it leaves no trace."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from search_nets import setup, trained

from pipeline.training.evaluate import reestimate_batchnorm
from stages.prune import ChannelPlan, CostModel, prune
from stages.search.caster import (
    Caster,
    _Depthwise,
    _is_centred_depthwise,
    _is_pointwise,
    _Pointwise,
)
from stages.search.executor import InProcess, Pool


def test_cast_equals_prune_in_any_order_of_candidates() -> None:
    model, graph, splits = trained()
    ready = setup()
    caster = Caster(model, graph, ready.space.ids)
    x, _ = splits.search.take(16, seed=0)
    rng = np.random.default_rng(0)
    for _ in range(4):
        keep = ready.evaluator.ranking.keep(
            ready.projector.logits(rng.standard_normal(len(ready.space)))
        )
        with torch.inference_mode():
            expected = prune(model, graph, ChannelPlan(keep)).eval()(x)
            torch.testing.assert_close(caster.cast(keep).eval()(x), expected, rtol=1e-5, atol=1e-5)


def test_scores_do_not_depend_on_what_was_scored_before() -> None:
    ready = setup()
    rng = np.random.default_rng(1)
    one, two = (ready.projector.logits(rng.standard_normal(len(ready.space))) for _ in range(2))
    first = ready.evaluator(one)
    ready.evaluator(two)
    again = ready.evaluator(one)
    assert (first.score, first.accuracy) == (again.score, again.accuracy)


def test_score_is_that_of_the_cut_network_after_fitting_batch_norm() -> None:
    model, graph, _ = trained()
    ready = setup(distill_steps=0)
    counts = ready.projector.logits(np.zeros(len(ready.space)))
    cut = prune(model, graph, ChannelPlan(ready.evaluator.ranking.keep(counts)))
    reestimate_batchnorm(cut, ready.evaluator.fit)
    with torch.inference_mode():
        student = cut.eval()(ready.evaluator.x).log_softmax(1)
        teacher = model(ready.evaluator.x).log_softmax(1)
        right = (student.argmax(1) == ready.evaluator.y).double().mean().item()
    outcome = ready.evaluator(counts)
    expected = -(teacher.exp() * (teacher - student)).sum(1).mean().item()
    assert outcome.score == pytest.approx(expected, rel=1e-5)
    assert outcome.accuracy == pytest.approx(right)
    assert outcome.images == 100


def test_distillation_before_the_score_is_sgd_on_the_softened_divergence_over_the_fit_images_again_and_again() -> (
    None
):
    model, graph, _ = trained()
    ready = setup(distill_steps=3, fit_images=128)
    counts = ready.projector.logits(np.zeros(len(ready.space)))
    cut = prune(model, graph, ChannelPlan(ready.evaluator.ranking.keep(counts))).train()
    x = torch.cat(list(ready.evaluator.fit))
    optimizer = torch.optim.SGD(cut.parameters(), 0.0, momentum=0.9, nesterov=True)
    for step, part in enumerate((x[:64], x[64:], x[:64])):
        optimizer.param_groups[0]["lr"] = 0.02 * (step + 1) / 5
        optimizer.zero_grad()
        student = (cut(part) / 2).log_softmax(1)
        teacher = (model(part).detach() / 2).softmax(1)
        (4 * (teacher * (teacher.log() - student)).sum(1).mean()).backward()
        optimizer.step()
    reestimate_batchnorm(cut.eval(), ready.evaluator.fit)
    with torch.inference_mode():
        student, teacher = (net(ready.evaluator.x).log_softmax(1) for net in (cut, model))
    expected = -(teacher.exp() * (teacher - student)).sum(1).mean().item()
    assert ready.evaluator(counts).score == pytest.approx(expected, rel=1e-3)
    longer, untrained = (
        setup(distill_steps=12).evaluator(counts),
        setup(distill_steps=0).evaluator(counts),
    )
    assert longer.score > expected > untrained.score


def test_a_candidate_in_training_has_no_dropout_and_leaves_the_random_state_alone() -> None:
    ready = setup()
    dropout = torch.nn.Dropout(0.9)
    seen: list[bool] = []
    ready.evaluator._caster.twin.add_module("spare", dropout)
    dropout.train(False)
    ready.evaluator._caster.twin.register_forward_hook(
        lambda net, *_: seen.append(net.spare.training)
    )
    state = torch.get_rng_state()
    ready.evaluator(ready.projector.logits(np.zeros(len(ready.space))))
    assert seen
    assert not any(seen)
    assert torch.equal(state, torch.get_rng_state())


def test_pointwise_convolutions_of_the_twin_are_matrix_products_with_the_same_result_and_gradient() -> (
    None
):
    torch.manual_seed(0)
    plain = torch.nn.Conv2d(12, 7, 1).double()
    product = copy.deepcopy(plain)
    assert _is_pointwise(product)
    product.__class__ = _Pointwise
    x = torch.randn(3, 12, 5, 6, dtype=torch.float64).to(memory_format=torch.channels_last)
    for net in (plain, product):
        net(x).square().sum().backward()
    torch.testing.assert_close(product(x), plain(x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(product.weight.grad, plain.weight.grad, rtol=1e-12, atol=1e-12)
    others = {"stride": 2}, {"groups": 3, "out_channels": 6}, {"padding": 1}, {"kernel_size": 3}
    for changed in others:
        assert not _is_pointwise(
            torch.nn.Conv2d(**{"in_channels": 12, "out_channels": 7, "kernel_size": 1, **changed})
        )


def test_the_twin_has_its_own_kinds_of_convolution() -> None:
    kinds = {type(module) for module in setup().evaluator._caster.twin.modules()}
    assert {_Pointwise, _Depthwise} <= kinds


@pytest.mark.parametrize(
    ("size", "bias", "stride"),
    [
        ((1, 1), True, 1),
        ((1, 1), False, 2),
        ((2, 2), False, 2),
        ((2, 2), True, 1),
        ((1, 3), True, 1),
    ],
)
def test_depthwise_convolutions_of_the_twin_are_sums_on_few_pixels_with_equal_gradients(
    size: tuple[int, int], bias: bool, stride: int
) -> None:
    settings = {
        "kernel_size": (3, 5),
        "padding": (1, 2),
        "stride": stride,
        "groups": 6,
        "bias": bias,
    }
    plain = torch.nn.Conv2d(6, 6, **settings).double()
    factor = copy.deepcopy(plain)
    assert _is_centred_depthwise(factor)
    factor.__class__ = _Depthwise
    x = torch.randn(4, 6, *size, dtype=torch.float64)
    results = []
    for conv in (plain, factor):
        source = x.clone().requires_grad_()
        out = conv(source)
        (out**2).sum().backward()
        results.append((out, source.grad, *(parameter.grad for parameter in conv.parameters())))
    for expected, got in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "changed",
    [{"padding": 0}, {"padding": "same"}, {"kernel_size": 2}, {"groups": 3}, {"out_channels": 12}, {"dilation": 2},
     {"padding_mode": "circular"}],
)  # fmt: skip
def test_other_convolutions_stay_as_they_are(changed: dict[str, object]) -> None:
    usual = {"in_channels": 6, "out_channels": 6, "kernel_size": 3, "padding": 1, "groups": 6}
    assert _is_centred_depthwise(torch.nn.Conv2d(**usual))
    assert not _is_centred_depthwise(torch.nn.Conv2d(**usual | changed))


def test_scoring_leaves_the_original_untouched() -> None:
    model, _, _ = trained()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ready = setup()
    ready.evaluator(ready.projector.logits(np.zeros(len(ready.space))))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_whole_network_scores_zero_divergence() -> None:
    ready = setup()
    assert ready.evaluator.base()[0] == 0.0
    assert ready.evaluator.base()[1] > 0.9, "the test network is trained"


def test_a_bar_ends_the_evaluation_at_a_glance() -> None:
    ready = setup(images=400, distill_steps=0)
    counts = ready.projector.logits(np.zeros(len(ready.space)))
    assert ready.evaluator.glances == (64,)
    outcome = ready.evaluator(counts, bars=(1.0, 1.0))
    assert (outcome.stopped, outcome.images, outcome.rungs) == (True, 64, (outcome.score,))
    carried = ready.evaluator(counts, bars=(outcome.score, 1.0))
    assert (carried.stopped, carried.images, carried.rungs) == (False, 400, outcome.rungs)
    plain = ready.evaluator(counts)
    assert (plain.score, plain.rungs) == (carried.score, ())


def test_glances_grow_with_the_images_and_take_most_of_them_only_before_training() -> None:
    """A sixteenth and a quarter of many; 64 and 256 of a thousand; none of a hundred, unless
    training follows.
    """
    ready = setup(images=100, distill_steps=0).evaluator
    few = {
        n: replace(ready, x=ready.x[:1].expand(n, -1, -1, -1), y=ready.y[:1].expand(n)).glances
        for n in (600, 3200)
    }
    assert (ready.glances, few) == ((), {600: (64, 256), 3200: (200, 800)})
    assert replace(ready, steps=1).glances == (64,)


def test_a_glance_is_the_cut_network_in_training_mode_on_the_first_images() -> None:
    model, graph, _ = trained()
    ready = setup(images=400)
    counts = ready.projector.logits(np.zeros(len(ready.space)))
    cut = prune(model, graph, ChannelPlan(ready.evaluator.ranking.keep(counts))).train()
    with torch.inference_mode():
        student, teacher = (net(ready.evaluator.x[:64]).log_softmax(1) for net in (cut, model))
    expected = -(teacher.exp() * (teacher - student)).sum(1).mean().item()
    assert ready.evaluator(counts, bars=(1.0,)).score == pytest.approx(expected, rel=1e-5)


def test_costs_are_those_of_the_cost_model_and_of_the_cut_network() -> None:
    model, graph, _ = trained()
    ready = setup()
    rng = np.random.default_rng(2)
    exact = CostModel(graph)
    for _ in range(5):
        counts = ready.projector.logits(rng.standard_normal(len(ready.space)))
        kept = ready.space.as_dict(counts)
        assert ready.cost(counts) == {"macs": exact.macs(kept), "params": exact.params(kept)}
    cut = prune(model, graph, ChannelPlan(ready.evaluator.ranking.keep(counts)))
    assert ready.cost(counts)["params"] == sum(p.numel() for p in cut.parameters())


def test_worker_processes_give_the_same_outcomes() -> None:
    ready = setup()
    torch.set_num_threads(1)
    rng = np.random.default_rng(3)
    jobs = [(ready.projector.logits(rng.standard_normal(len(ready.space))), ()) for _ in range(3)]
    with Pool(ready.evaluator, 1) as pool:
        there = {index: outcome.score for index, outcome in pool.run(jobs)}
    here = {index: outcome.score for index, outcome in InProcess(ready.evaluator).run(jobs)}
    assert there == here


def test_a_network_that_yields_nan_scores_badly_instead_of_crashing() -> None:
    ready = setup()
    counts = ready.projector.logits(np.zeros(len(ready.space)))
    ready.evaluator.x[:] = float("nan")
    outcome = ready.evaluator(counts)
    assert outcome.score == -1e3
