"""Timings on the page: every file at every setting, and the noise beside them."""

from __future__ import annotations

from typing import Any

import pytest
from report_documents import BENCHMARK, setting

from stages.report import plots
from stages.report.views import timing


def test_a_rate_above_the_peak_is_not_given_as_a_part_of_it() -> None:
    why = {"a": {"gmacs_per_s": 15.0}, "b": {"gmacs_per_s": 6.0}, "peak_gmacs_per_s": 9.0}
    assert "9.0" not in timing.roofline_sentence({"why": why})


def test_a_ratio_that_was_not_shown_is_not_printed_as_a_speedup() -> None:
    assert timing.ratio_cells(BENCHMARK["settings"][0])["ratio"] == "1.90×"  # type: ignore[index]
    assert timing.ratio_cells(BENCHMARK["settings"][1])["ratio"] == "–"  # type: ignore[index]


def test_every_setting_has_a_table_of_all_files_with_the_control_beside_the_original() -> None:
    further = [setting("faster", 3.0, 2.9, 3.1)]
    other = {"file": "wide.onnx", "accuracy": None, "settings": further}
    benchmark = {**BENCHMARK, "settings": BENCHMARK["settings"][:1], "against": [other]}  # type: ignore[index]
    (table,) = timing.setting_tables(benchmark)
    assert table["name"] == "CPU, batch 1, 1 thread"
    assert [(row["name"], row["ratio"]) for row in table["rows"]] == [
        ("original", "1"),
        ("original, INT8 alone", "1.40×"),
        ("pruned", "1.60×"),
        ("pruned, INT8", "1.90×"),
        ("wide.onnx", "3.00×"),
    ]
    assert table["rows"][0]["ci"] == "0.97 to 1.02 (A/A)"
    assert table["rows"][0]["rate"] == ""  # of an older release, which did not say


def test_what_is_not_in_the_times_is_said() -> None:
    first = {
        **BENCHMARK["settings"][0],  # type: ignore[index]
        "copies_ms": {"a": 0.25, "b": 0.125},
        "fallback_nodes": ["Conv_1", "Conv_2", "Conv_3", "Conv_4"],
    }
    (table,) = timing.setting_tables({**BENCHMARK, "settings": [first]})
    copies, fallback = table["notes"]
    assert "0.250 ms for the original, 0.125 ms for the delivered file" in copies
    assert fallback == "The provider left to the CPU: Conv_1, Conv_2, Conv_3 and 1 more."


def test_every_setting_is_drawn_over_its_own_control(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(plots, "speedups", lambda rows: seen.extend(rows) or "svg")
    rows = [setting("faster", 1.9, 1.8, 2.0), {**setting("faster", 1.5, 1.4, 1.6), "batch": 32}]
    rows[1]["aa_ci95"] = [0.8, 1.3]
    timing.speedup_plot(rows)
    assert [row[4:] for row in seen] == [(0.97, 1.02), (0.8, 1.3)]
    assert [row[0] for row in seen] == ["batch 1, 1 thread", "batch 32, 1 thread"]


def test_the_spread_of_calls_is_drawn_where_it_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr(plots, "distributions", lambda curves: seen.update(curves) or "svg")
    rows = [dict(row) for row in BENCHMARK["variants"]]  # type: ignore[arg-type]
    assert timing.distribution_plot(rows) == ""
    rows[0]["quantiles_ms"] = {"5": 1.0, "50": 2.0, "10": 1.5}
    assert timing.distribution_plot(rows) == "svg"
    assert seen == {"original": [(5, 1.0), (10, 1.5), (50, 2.0)]}


def test_when_and_under_what_load_it_was_timed() -> None:
    machine = {"cpu": "EPYC", "cores": 2, "load": [1.84, 1.0, 1.0]}
    settings = [{**BENCHMARK["settings"][0], "rounds": 52, "launches": 4}]  # type: ignore[index]
    text = timing.measured_sentence({"machine": machine, "settings": settings}, "2026-11-27 14:00")
    assert "52 rounds of 4 launches" in text
    assert "Measured 2026-11-27 14:00 on EPYC, 2 cores, load 1.8" in text
    quiet = {"machine": {"cpu": None, "cores": 1, "load": None}, "settings": settings}
    assert timing.measured_sentence(quiet, "").endswith("on an unnamed processor, 1 core.")


def test_how_far_from_the_limit() -> None:
    why = {"a": {"gmacs_per_s": 8.04}, "b": {"gmacs_per_s": 6.0}, "peak_gmacs_per_s": 40.0}
    assert "8.0 and 6.0 of the 40.0 GMAC/s" in timing.roofline_sentence({"why": why})
    assert timing.roofline_sentence({}) == ""
