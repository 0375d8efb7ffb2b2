"""A candidate is what `prune` would cut, and scoring it leaves no trace."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from search_nets import setup, trained

from pipeline.training.evaluate import reestimate_batchnorm
from stages.prune import ChannelPlan, CostModel, prune
from stages.search.caster import Caster
from stages.search.executor import InProcess, Pool


def test_cast_equals_prune_in_any_order_of_candidates() -> None:
    model, graph, splits = trained()
    ready = setup()
    caster = Caster(model, graph, ready.space.ids)
    x, _ = splits.search.take(16, seed=0)
    rng = np.random.default_rng(0)
    for _ in range(4):
        keep = ready.evaluator.ranking.keep(ready.projector.logits(rng.standard_normal(len(ready.space))))
        with torch.inference_mode():
            assert torch.equal(caster.cast(keep).eval()(x), prune(model, graph, ChannelPlan(keep)).eval()(x))


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
    ready = setup()
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
    ready = setup(images=400)
    counts = ready.projector.logits(np.zeros(len(ready.space)))
    assert ready.evaluator.glances == (64,)
    outcome = ready.evaluator(counts, bars=(1.0, 1.0))
    assert (outcome.stopped, outcome.images, outcome.rungs) == (True, 64, (outcome.score,))
    carried = ready.evaluator(counts, bars=(outcome.score, 1.0))
    assert (carried.stopped, carried.images, carried.rungs) == (False, 400, outcome.rungs)
    plain = ready.evaluator(counts)
    assert (plain.score, plain.rungs) == (carried.score, ())


def test_glances_grow_with_the_images_and_never_take_most_of_them() -> None:
    """A sixteenth and a quarter of many; 64 and 256 of a thousand; none of a hundred."""
    ready = setup(images=100).evaluator
    few = {n: replace(ready, x=ready.x[:1].expand(n, -1, -1, -1), y=ready.y[:1].expand(n)).glances for n in (600, 3200)}
    assert (ready.glances, few) == ((), {600: (64, 256), 3200: (200, 800)})


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
