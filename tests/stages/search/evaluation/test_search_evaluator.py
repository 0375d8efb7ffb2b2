"""Scoring is what it says, and leaves no trace."""

from __future__ import annotations

import copy
import os
import signal

import numpy as np
import pytest
import torch
from search_nets import even_counts, problem, random_counts, trained

from pipeline.channels.rebuild import rebuild
from pipeline.config.search import EvaluationConfig
from pipeline.training.evaluate import reestimate_batchnorm
from stages.prune import ChannelPlan, prune
from stages.search import SearchProblem
from stages.search.evaluation import InProcess, Pool
from stages.search.evaluation.evaluator import WORST, rung_sizes
from stages.search.evaluation.trial import Outcome


def cut_network(ready: SearchProblem, counts: np.ndarray) -> torch.nn.Module:
    model, graph, _ = trained()
    return prune(model, graph, ChannelPlan(ready.ranking.keep(counts)))


def divergence(student: torch.nn.Module, x: torch.Tensor) -> float:
    """-KL(original || student), written out."""
    with torch.inference_mode():
        given, wanted = (net(x).log_softmax(1) for net in (student, trained()[0]))
    return -(wanted.exp() * (wanted - given)).sum(1).mean().item()


def test_scores_do_not_depend_on_what_was_scored_before() -> None:
    ready = problem()
    one, two = (random_counts(ready, seed) for seed in (1, 2))
    first = ready.evaluator(one)
    ready.evaluator(two)
    again = ready.evaluator(one)
    assert (first.score, first.accuracy) == (again.score, again.accuracy)


def test_score_is_that_of_the_cut_network_after_fitting_batch_norm() -> None:
    ready = problem(reconstruct=False)
    counts = even_counts(ready)
    cut = cut_network(ready, counts)
    reestimate_batchnorm(cut, ready.fit)
    cut.eval()
    x, y = ready.evaluator.x, ready.evaluator.y
    with torch.inference_mode():
        right = (cut(x).argmax(1) == y).double().mean().item()
    outcome = ready.evaluator(counts)
    assert outcome.score == pytest.approx(divergence(cut, x), rel=1e-5)
    assert outcome.accuracy == pytest.approx(right)
    assert outcome.images == 100


def test_score_is_that_of_the_network_with_weights_by_least_squares() -> None:
    model, graph, _ = trained()
    ready = problem(images=250)
    counts = even_counts(ready)
    assert ready.moments is not None
    keep = ready.ranking.keep(counts)
    cut = rebuild(model, ready.moments.tensors_after(keep), graph.widths_after(keep)).eval()
    expected = divergence(cut, ready.evaluator.x)
    assert ready.evaluator(counts).score == pytest.approx(expected, rel=1e-4)
    at_rung = divergence(cut, ready.evaluator.x[:64])
    assert ready.evaluator(counts, (1.0,)).score == pytest.approx(at_rung, rel=1e-4)
    plain = problem(images=250, reconstruct=False, criterion="obs")
    assert plain.moments is None
    assert plain.evaluator(counts).score < ready.evaluator(counts).score


def test_what_a_reconstruction_shifts_is_as_it_was_for_the_next_candidate() -> None:
    """Running means and biases of layers that are not cut at all are among it."""
    ready = problem()
    whole = ready.space.sizes
    ready.evaluator(even_counts(ready))
    network, (model, _, _) = ready.evaluator.candidate(whole), trained()
    wanted = model.state_dict()
    assert all(torch.equal(wanted[name], found) for name, found in network.state_dict().items())


@pytest.mark.parametrize(
    "recipe", [{}, {"lr": 0.05, "warmup": 2, "temperature": 4.0, "step_images": 32}]
)
def test_distillation_is_sgd_on_the_softened_divergence_over_the_fit_images_again_and_again(
    recipe: dict[str, float],
) -> None:
    model, _, _ = trained()
    rules = EvaluationConfig(**recipe)
    ready = problem(reconstruct=False, distill_steps=5, fit_images=128, evaluation=recipe)
    counts = even_counts(ready)
    cut = cut_network(ready, counts).train()
    parts = torch.cat(list(ready.fit)).split(rules.step_images)
    optimizer = torch.optim.SGD(cut.parameters(), 0.0, momentum=0.9, nesterov=True)
    soft = rules.temperature
    for step in range(5):
        part = parts[step % len(parts)]
        optimizer.param_groups[0]["lr"] = rules.lr * min(1.0, (step + 1) / rules.warmup)
        optimizer.zero_grad()
        student = (cut(part) / soft).log_softmax(1)
        teacher = (model(part).detach() / soft).softmax(1)
        (soft**2 * (teacher * (teacher.log() - student)).sum(1).mean()).backward()
        optimizer.step()
    reestimate_batchnorm(cut.eval(), ready.fit)
    expected = divergence(cut, ready.evaluator.x)
    assert ready.evaluator(counts).score == pytest.approx(expected, rel=1e-3)


def test_longer_distillation_scores_better() -> None:
    scores = []
    for steps in (0, 3, 12):
        ready = problem(reconstruct=False, distill_steps=steps)
        scores.append(ready.evaluator(even_counts(ready)).score)
    assert scores == sorted(scores)
    assert len(set(scores)) == 3


def test_distillation_of_a_reconstructed_candidate_keeps_its_statistics() -> None:
    plain, trained_too = problem(), problem(distill_steps=3)
    counts = even_counts(plain)
    assert trained_too.evaluator(counts).score > plain.evaluator(counts).score
    one, two = (
        dict(ready.evaluator.candidate(counts).named_buffers()) for ready in (plain, trained_too)
    )
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())


def test_a_candidate_in_training_has_no_dropout_and_leaves_the_random_state_alone() -> None:
    ready = problem()
    network, seen = ready.evaluator.candidate_network.network, []
    network.add_module("spare", torch.nn.Dropout(0.9).eval())
    network.register_forward_hook(lambda net, *_: seen.append(net.spare.training))
    state = torch.get_rng_state()
    ready.evaluator(even_counts(ready))
    assert seen
    assert not any(seen)
    assert torch.equal(state, torch.get_rng_state())


def test_scoring_leaves_the_original_untouched() -> None:
    model, _, _ = trained()
    before = copy.deepcopy(model.state_dict())
    ready = problem()
    ready.evaluator(even_counts(ready))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_the_original_scores_zero_divergence() -> None:
    score, accuracy = problem().evaluator.of_original()
    assert score == 0.0
    assert accuracy > 0.9, "the test network is trained"


def test_a_candidate_that_is_not_promoted_stops_at_its_rung() -> None:
    ready = problem(images=250, distill_steps=0)
    counts = even_counts(ready)
    assert ready.evaluator.rungs == (64,)
    outcome = ready.evaluator(counts, (1.0, 1.0))
    assert (outcome.stopped, outcome.images, outcome.rungs) == (True, 64, (outcome.score,))
    promoted = ready.evaluator(counts, (outcome.score, 1.0))
    assert (promoted.stopped, promoted.images, promoted.rungs) == (False, 250, outcome.rungs)
    plain = ready.evaluator(counts)
    assert (plain.score, plain.rungs) == (promoted.score, ())


@pytest.mark.parametrize(
    ("images", "trained_first", "sizes"),
    [
        (100, False, ()),
        (100, True, (64,)),
        (600, True, (64, 256)),
        (600, False, (256,)),
        (3200, True, (200, 800)),
        (3200, False, (800,)),
    ],
)
def test_rungs_grow_with_the_images_and_take_most_of_them_only_before_training(
    images: int, trained_first: bool, sizes: tuple[int, ...]
) -> None:
    """A sixteenth and a quarter of many; 64 and 256 of a thousand; none of a hundred, and none of
    few among many, unless training follows.
    """
    assert rung_sizes(images, trained=trained_first, rules=EvaluationConfig()) == sizes


def test_at_a_rung_the_cut_network_is_in_training_mode_on_the_first_images() -> None:
    ready = problem(images=250, reconstruct=False)
    counts = even_counts(ready)
    expected = divergence(cut_network(ready, counts).train(), ready.evaluator.x[:64])
    assert ready.evaluator(counts, (1.0,)).score == pytest.approx(expected, rel=1e-5)


def test_worker_processes_give_the_same_outcomes() -> None:
    ready = problem()
    torch.set_num_threads(1)
    jobs = [(random_counts(ready, seed), ()) for seed in range(3)]
    with Pool(ready.evaluator, 1) as pool:
        there = {index: outcome.score for index, outcome in pool.run(jobs)}
    here = {index: outcome.score for index, outcome in InProcess(ready.evaluator).run(jobs)}
    assert there == here


def _pressed(counts: object, thresholds: object) -> Outcome:
    os.kill(os.getpid(), signal.SIGINT)
    return Outcome(1.0, (), 0.5, 1, False, 0.0)


def test_workers_leave_ctrl_c_to_their_parent() -> None:
    with Pool(_pressed, 1) as pool:
        assert [outcome.score for _, outcome in pool.run([(np.array([1]), ())])] == [1.0]


def test_a_network_that_yields_nan_scores_badly_instead_of_crashing() -> None:
    ready = problem()
    ready.evaluator.x[:] = float("nan")
    assert ready.evaluator(even_counts(ready)).score == WORST
