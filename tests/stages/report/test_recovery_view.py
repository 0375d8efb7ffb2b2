"""What recovery gave, said as it was."""

from __future__ import annotations

from typing import Any

import pytest

from stages.report import plots
from stages.report.views import recovery


def test_recovery_without_training_says_so() -> None:
    accuracy = {"teacher": 0.9, "cut": 0.5, "batchnorm": 0.7, "final": 0.7}
    distill = {"search_accuracy": accuracy, "training": None, "mode": "bn_only"}
    distill["kept"] = "batchnorm"
    cut = {"accuracy": {"original": 0.9, "cut": 0.4}}
    sentence = recovery.recovery_sentence(cut, distill)
    assert sentence.endswith("after the cut 40.00%, after batch-norm re-estimation 70.00%.")
    fitted = {"accuracy": {"original": 0.9, "cut": 0.4, "reconstructed": 0.5}}
    assert "after least squares 50.00%" in recovery.recovery_sentence(fitted, distill)


def test_every_step_has_its_own_name_and_what_was_kept_is_marked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(plots, "recovery", lambda *given: seen.append(given) or "svg")
    accuracy = {"teacher": 0.9, "cut": 0.8, "batchnorm": 0.7, "final": 0.85}
    epochs = {"history": [{"accuracy": 0.82}, {"accuracy": 0.85}]}
    distill = {"search_accuracy": accuracy, "training": epochs, "kept": "epoch 2"}
    fitted = {"accuracy": {"original": 0.9, "cut": 0.1, "reconstructed": 0.8}}
    recovery.recovery_plot(fitted, distill, 900)
    recovery.recovery_plot(fitted, {**distill, "training": None, "kept": "cut"}, 900)
    states, trained, kept, teacher, noise = seen[0]
    assert states == {"as cut": 10.0, "least squares": 80.0, "batch norm": 70.0}
    assert (trained, kept, teacher) == (pytest.approx([82.0, 85.0]), "epoch 2", 90.0)
    assert noise == pytest.approx(1.96)
    assert seen[1][2] == "least squares", "what recovery started from"


def test_a_rotation_is_said_where_there_was_one() -> None:
    none = {"groups": [], "difference": 0.0}
    assert recovery.rotation_sentence(none) == ""
    some = {"groups": [{"id": "features.2"}, {"id": "features.4"}], "difference": 2.7e-15}
    sentence = recovery.rotation_sentence(some)
    assert "2 linear trunks" in sentence
    assert "(features.2, features.4)" in sentence
    assert "2.7e-15" in sentence
