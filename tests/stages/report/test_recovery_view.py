"""What recovery gave, said as it was."""

from __future__ import annotations

from stages.report.views import recovery


def test_recovery_without_training_says_so() -> None:
    accuracy = {"teacher": 0.9, "cut": 0.5, "batchnorm": 0.7, "final": 0.7}
    distill = {"search_accuracy": accuracy, "training": None, "mode": "bn_only"}
    assert recovery.recovery_sentence(distill).endswith("after batch-norm re-estimation 70.00%.")
    assert recovery.recovery_plot(distill) == ""
