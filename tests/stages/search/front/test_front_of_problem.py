"""Plans of the trained network: within their budgets, measured as a run would, with costs that are
counted.
"""

from __future__ import annotations

import numpy as np
import pytest
from search_nets import problem, trained

from pipeline.channels.costs import CostModel
from pipeline.channels.plan import ChannelPlan
from pipeline.channels.surgery import cut
from pipeline.training.evaluate import accuracy
from stages.reconstruct import reconstruct
from stages.search import InProcess, Search, Tabulation
from stages.search.front.document import front_document
from stages.search.front.fronts import FrontMaker
from stages.search.front.measuring import ReconstructedAccuracy
from stages.search.problem import SearchProblem
from stages.search.tables.loss_table import LossTable

BYTES = 1 << 28


@pytest.fixture(scope="module")
def ready() -> SearchProblem:
    return problem(table={"images": 40, "widths": 2})


@pytest.fixture(scope="module")
def table(ready: SearchProblem) -> LossTable:
    return Tabulation(ready.space, 2, Search(InProcess(ready.table_evaluator())))()


def evaluator(ready: SearchProblem, *, images: int = 64) -> ReconstructedAccuracy:
    model, graph, splits = trained()
    x = splits.train.take(images, seed=0)[0] if images else None
    return ReconstructedAccuracy(
        model, graph, ready.ranking, x, splits.search, seed=0, max_bytes=BYTES
    )


def maker(ready: SearchProblem, table: LossTable) -> FrontMaker:
    return FrontMaker(ready, table, Search(InProcess(evaluator(ready))))


def test_plans_keep_their_budgets_and_reach_from_end_to_end(
    ready: SearchProblem, table: LossTable
) -> None:
    made = maker(ready, table)
    points = made.points(6)
    whole = ready.projector.cost.of(ready.space.sizes)
    assert all(point.cost <= point.share * whole * (1 + 1e-9) for point in points)
    assert points[0].counts.tolist() == ready.space.least.tolist()
    assert points[-1].loss == 0
    assert all(ready.space.allows(point.counts) for point in points)


def test_a_measured_accuracy_is_that_of_the_reconstructed_network(
    ready: SearchProblem, table: LossTable
) -> None:
    model, graph, splits = trained()
    made = maker(ready, table)
    (point,) = made.measured([made.point(0.4)])
    plan = ChannelPlan(ready.ranking.keep(point.counts), {})
    x, _ = splits.train.take(64, seed=0)
    network = reconstruct(cut(model, graph, plan), model, graph, plan, x, max_bytes=BYTES)
    assert point.accuracy == accuracy(network, splits.search)
    assert point.measured
    assert made.whole().accuracy == accuracy(model, splits.search)


def test_without_images_a_plan_is_measured_as_it_is_cut(ready: SearchProblem) -> None:
    model, graph, splits = trained()
    counts = ready.projector.logits(np.zeros(len(ready.space)))
    plan = ChannelPlan(ready.ranking.keep(counts), {})
    found = evaluator(ready, images=0)(counts)
    assert found.accuracy == accuracy(cut(model, graph, plan), splits.search)


def test_a_plan_is_measured_once(ready: SearchProblem, table: LossTable) -> None:
    made = maker(ready, table)
    assert made.search is not None
    calls: list[np.ndarray] = []
    evaluate = made.search.executor.evaluate  # type: ignore[attr-defined]
    made.search.executor = InProcess(lambda counts, t: calls.append(counts) or evaluate(counts, t))
    made.measured([made.point(0.4)] * 2)
    made.measured([made.point(0.4)])
    assert len(calls) == 1
    assert len(made.trials) == 3


def test_a_few_points_of_a_front_are_measured_and_the_others_predicted_between_them(
    ready: SearchProblem, table: LossTable
) -> None:
    made = maker(ready, table)
    front = made.front(made.points(8), 3)
    measured = [point for point in front if point.measured]
    assert 1 <= len(measured) <= 4, "the whole network is measured as well"
    assert len(made.trials) == 4
    accuracies = [point.accuracy for point in front]
    assert None not in accuracies
    assert accuracies == sorted(accuracies)  # type: ignore[type-var]


def test_the_document_counts_what_plans_cost(ready: SearchProblem, table: LossTable) -> None:
    _, graph, _ = trained()
    made, cost = maker(ready, table), CostModel(graph)
    found = front_document(ready, made.front(made.points(5), 1), 0.75)
    assert (found["metric"], found["original"]["accuracy"]) == ("macs", 0.75)
    assert found["original"]["macs"] == cost.macs()
    for row in found["points"]:
        assert row["macs"] == cost.macs(row["keep"])
        assert row["params"] == cost.params(row["keep"])
        assert row["latency"] is None
        assert row["macs"] <= row["budget"] * cost.macs() * (1 + 1e-9)
        assert set(row) == {
            "budget", "metric", "macs", "params", "latency", "loss", "accuracy", "measured", "keep",
        }  # fmt: skip
