"""Four variants in one table, and what quantising found."""

from __future__ import annotations

from report_documents import BENCHMARK, QUANTIZATION

from stages.report.views import variants


def test_int8_alone_stands_beside_the_rest_and_the_delivered_one_is_marked() -> None:
    rows = variants.variant_rows(BENCHMARK["variants"])  # type: ignore[arg-type]
    assert [(row["name"], row["chosen"]) for row in rows] == [
        ("original", False),
        ("original, INT8 alone", False),
        ("pruned", False),
        ("pruned, INT8", True),
    ]
    assert rows[1]["accuracy"] == "89.10%"
    assert (rows[1]["ratio"], rows[1]["ci"]) == ("1.40×", "1.30 to 1.50")
    assert (rows[0]["ratio"], rows[0]["ci"]) == ("1", "")
    assert [row["memory"] for row in rows] == [""] * 4  # runs of older releases have none
    measured = [{**row, "memory_bytes": 22_000_000} for row in BENCHMARK["variants"]]  # type: ignore[attr-defined]
    assert variants.variant_rows(measured)[0]["memory"] == "22.0 MB"


def test_scheme_reason_and_float_nodes_are_said() -> None:
    chosen, scheme, nodes = variants.quantization_sentences(QUANTIZATION)
    assert "INT8 is 1.20× (1.10 to 1.30) as fast as fp32" in chosen
    assert "U8S8, per channel, 7-bit weights, percentile 99.99" in scheme
    assert "90.00% and INT8 89.90%" in scheme
    assert nodes == (
        "10 of its nodes were not quantised: "
        "conv0, conv1, conv2, conv3, conv4, conv5, conv6, conv7 and 2 more."
    )
    assert variants.quantization_sentences({**QUANTIZATION, "mode": "off"}) == []


def test_what_was_not_asked_of_a_scheme_is_blank() -> None:
    timed, scored = variants.tried_rows(QUANTIZATION)
    assert (timed["accuracy"], timed["images"], timed["ci"]) == ("", "", "")
    assert timed["ratio"] == "1.50×"
    assert (scored["accuracy"], scored["images"], scored["ci"]) == (
        "90.00%",
        "1,000",
        "1.40 to 1.60",
    )


def test_the_curve_is_drawn_from_two_points_on() -> None:
    rows = [
        {"float_nodes": count, "accuracy": 0.8 + count / 100, "ratio": 2 - count / 10, "ci95": ci}
        for count, ci in ((0, [1.9, 2.1]), (3, None), (7, [1.2, 1.4]))
    ]
    assert variants.curve_plot({"curve": rows[:1]}) == variants.curve_plot({}) == ""
    plot = variants.curve_plot({"curve": rows})
    assert plot.startswith("<svg ")
    assert all(f">{count}<" in plot for count in (0, 3, 7))
