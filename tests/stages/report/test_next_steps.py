"""What to try next follows from what was measured."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from report_documents import run_documents

from pipeline.config.schema import Config
from pipeline.paired import paired_change
from stages.report.documents import RunDocuments
from stages.report.summary import PLACES, summarise
from stages.report.views.next_steps import next_steps

LOST, NOT_LOST = paired_change(1000, 4, 40), paired_change(1000, 20, 24)


def steps(
    found: RunDocuments, verdict: str = "faster", config: Config | None = None
) -> dict[str, str]:
    """Commands by the first two words of their reason."""
    summary = summarise("r", found.benchmark, found.parity, found.quantization, **PLACES)
    summary["speedup"] |= {"verdict": verdict}
    listed = next_steps(config or Config(), found, summary, "artifacts/my", "my.yaml")
    return {" ".join(step.why.split()[:2]): str(step.command) for step in listed}


def distilled(found: RunDocuments, **values: Any) -> RunDocuments:
    return replace(found, distillation={**found.distillation, **values})


def test_a_good_run_is_held_in_ci_and_shows_what_less_would_cost() -> None:
    found = steps(run_documents())
    assert found["Hold it"] == "rlp check artifacts/my --min-speedup 1.8 --max-accuracy-drop 1"
    assert found["No loss"] == "rlp search front my.yaml"


def test_without_a_speedup_a_smaller_network_is_asked_for() -> None:
    found = steps(run_documents(), verdict="no difference shown")
    assert found == {"No speedup": "rlp pipeline run my.yaml --set search.budget.macs=0.38"}


def test_accuracy_that_was_lost_is_trained_for_where_training_was_still_of_use() -> None:
    whole = distilled(run_documents(), search_change=LOST)
    again = "rlp pipeline run my.yaml --set distill.epochs="
    first = "rlp pipeline run my.yaml --set distill.mode=distill --set distill.epochs=10"
    trained = {"history": [{"epoch": n, "accuracy": 0.8} for n in (1, 2)]}
    assert steps(whole)["Accuracy was"] == first
    for kept, command in (("epoch 2", f"{again}4"), ("epoch 1", None), ("adopted", None)):
        found = steps(distilled(whole, training=trained, kept=kept))
        assert found.get("Accuracy was") == command


def test_what_was_lost_on_the_search_split_keeps_smaller_budgets_away() -> None:
    whole = distilled(run_documents(), search_change=NOT_LOST)
    assert "No loss" in steps(whole)
    assert "No loss" not in steps(distilled(whole, search_change=LOST))
    int8 = {**whole.quantization["accuracy"], "drop_ci95": [0.2, 1.4]}
    lossy = {**whole.quantization, "accuracy": int8}
    assert "No loss" not in steps(replace(whole, quantization=lossy))
    assert "No loss" in steps(replace(whole, quantization={**lossy, "chosen": "fp32"}))
    older = {key: v for key, v in whole.distillation.items() if key != "search_change"}
    assert list(steps(replace(whole, distillation=older))) == ["Hold it"]


@pytest.mark.parametrize("change", [LOST, NOT_LOST], ids=["lost", "not lost"])
def test_the_test_split_has_no_say(change: dict[str, Any]) -> None:
    whole = distilled(run_documents(), search_change=change)
    expected = steps(whole)

    def forged(row: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
        known = row.get("accuracy_change") is not None
        return {**row, "accuracy": 0.1} | ({"accuracy_change": change} if known else {})

    for other in (paired_change(5000, 9, 900), paired_change(5000, 900, 9)):
        benchmark = {
            **whole.benchmark,
            "base": {**whole.benchmark["base"], "accuracy": 0.1, "near_chance": True},
            "final": {**whole.benchmark["final"], "accuracy": 0.1},
            "variants": [forged(row, other) for row in whole.benchmark["variants"]],
        }
        assert steps(replace(whole, benchmark=benchmark)) == expected


def test_widths_that_pay_here_are_asked_for() -> None:
    whole = run_documents()
    assert "Multiples of" not in steps(whole)
    other, given = replace(whole, plan={"metadata": {"align": 4}}), Config(search={"align": 4})
    found = steps(other, config=given)
    assert found["Multiples of"] == "rlp pipeline run my.yaml --set search.align=auto"
    assert "Multiples of" not in steps(other), "auto has taken 4 because the layers are narrow"


def test_a_doubtful_measurement_comes_first() -> None:
    whole = run_documents()
    first = {**whole.benchmark["settings"][0], "doubts": ["the warm-up did not settle"]}
    benchmark = {**whole.benchmark, "settings": [first]}
    guessing = {**whole.train, "search_accuracy": 0.5}
    found = steps(replace(whole, benchmark=benchmark, train=guessing))
    assert list(found)[:2] == ["The machine", "The original"]
    assert found["The machine"] == "rlp stage benchmark --run artifacts/my --force"
    assert found["The original"] == "rlp config explain data.mean"
