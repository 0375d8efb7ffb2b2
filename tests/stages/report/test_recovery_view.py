"""What recovery gave, said as it was."""

from __future__ import annotations

from stages.report.views import recovery


def test_recovery_without_training_says_so() -> None:
    accuracy = {"teacher": 0.9, "cut": 0.5, "batchnorm": 0.7, "final": 0.7}
    distill = {"search_accuracy": accuracy, "training": None, "mode": "bn_only"}
    cut = {"accuracy": {"original": 0.9, "cut": 0.4}}
    sentence = recovery.recovery_sentence(cut, distill)
    assert sentence.endswith("after the cut 40.00%, after batch-norm re-estimation 70.00%.")
    fitted = {"accuracy": {"original": 0.9, "cut": 0.4, "reconstructed": 0.5}}
    assert "after least squares 50.00%" in recovery.recovery_sentence(fitted, distill)
    assert recovery.recovery_plot(distill) == ""


def test_a_rotation_is_said_where_there_was_one() -> None:
    none = {"groups": [], "difference": 0.0}
    assert recovery.rotation_sentence(none) == ""
    some = {"groups": [{"id": "features.2"}, {"id": "features.4"}], "difference": 2.7e-15}
    sentence = recovery.rotation_sentence(some)
    assert "2 linear trunks" in sentence
    assert "(features.2, features.4)" in sentence
    assert "2.7e-15" in sentence
