"""What to try next follows from what was measured."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from report_documents import run_documents

from pipeline.config.schema import Config
from stages.report.documents import RunDocuments
from stages.report.summary import PLACES, summarise
from stages.report.views.next_steps import next_steps


def steps(found: RunDocuments, verdict: str = "faster", **change: Any) -> dict[str, str]:
    """Commands by the first two words of their reason."""
    summary = summarise("r", found.benchmark, found.parity, found.quantization, **PLACES)
    summary["speedup"] |= {"verdict": verdict}
    chosen = next(row for row in summary["variants"] if row["chosen"])
    chosen["accuracy_change"] = {**chosen["accuracy_change"], **change}
    listed = next_steps(Config(), found, summary, "artifacts/my", "my.yaml")
    return {" ".join(step.why.split()[:2]): str(step.command) for step in listed}


def test_a_good_run_is_held_in_ci_and_shows_what_less_would_cost() -> None:
    found = steps(run_documents())
    assert found["Hold it"] == "rlp check artifacts/my --min-speedup 1.8 --max-accuracy-drop 1"
    assert found["No loss"] == "rlp search front my.yaml"


def test_without_a_speedup_a_smaller_network_is_asked_for() -> None:
    found = steps(run_documents(), verdict="no difference shown")
    assert found == {"No speedup": "rlp pipeline run my.yaml --set search.budget.macs=0.38"}


def test_accuracy_that_was_lost_is_trained_for_where_training_was_still_of_use() -> None:
    whole = run_documents()
    lost = {"shown": True, "points": -3.0}
    again = "rlp pipeline run my.yaml --set distill.epochs="
    first = "rlp pipeline run my.yaml --set distill.mode=distill --set distill.epochs=10"
    trained = {"history": [{"epoch": n, "accuracy": 0.8} for n in (1, 2)]}
    assert steps(whole, **lost)["Accuracy was"] == first
    for kept, command in (("epoch 2", f"{again}4"), ("epoch 1", None), ("adopted", None)):
        distilled = {**whole.distillation, "training": trained, "kept": kept}
        assert steps(replace(whole, distillation=distilled), **lost).get("Accuracy was") == command


def test_widths_that_pay_here_are_asked_for() -> None:
    whole = run_documents()
    assert "Multiples of" not in steps(whole)
    other = replace(whole, plan={"metadata": {"align": 4}})
    assert steps(other)["Multiples of"] == "rlp pipeline run my.yaml --set search.align=auto"


def test_a_doubtful_measurement_comes_first() -> None:
    whole = run_documents()
    first = {**whole.benchmark["settings"][0], "doubts": ["the warm-up did not settle"]}
    base = {**whole.benchmark["base"], "near_chance": True}
    benchmark = {**whole.benchmark, "settings": [first], "base": base}
    found = steps(replace(whole, benchmark=benchmark))
    assert list(found)[:2] == ["The machine", "The original"]
    assert found["The machine"] == "rlp stage benchmark --run artifacts/my --force"
    assert found["The original"] == "rlp config explain data.mean"
