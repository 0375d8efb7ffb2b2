"""Accuracy by class: flips are counted, and only what is more than chance is marked."""

from __future__ import annotations

from typing import Any

from stages.report.views.classes import class_block

COUNTS: dict[str, Any] = {
    "images": [100, 100],
    "base": [90, 80],
    "final": [91, 60],
    "gained": [3, 2],
    "lost": [2, 22],
    "confusion": {"base": [[90, 10], [20, 80]], "final": [[91, 9], [40, 60]]},
}


def test_a_class_is_marked_where_its_change_is_more_than_chance() -> None:
    found = class_block({"classes": COUNTS}, ["cat", "dog"])
    assert found is not None
    cat, dog = found.rows
    assert (cat["name"], cat["before"], cat["after"], cat["change"]) == (
        "cat", "90.0%", "91.0%", "+1.0",
    )  # fmt: skip
    assert (cat["gained"], cat["lost"]) == ("3", "2")
    assert dog["change"] == "-20.0 *"
    assert found.marked == 1


def test_the_confusion_says_what_changed() -> None:
    found = class_block({"classes": COUNTS}, ["cat", "dog"])
    assert found is not None
    assert [(p["true"], p["named"], p["before"], p["after"]) for p in found.pairs] == [
        ("dog", "cat", "20", "40"),
        ("cat", "dog", "10", "9"),
    ]
    right, wrong = found.matrix[0]
    assert (right["count"], right["change"], right["right"], right["shade"]) == (
        "91",
        "+1",
        True,
        95,
    )
    assert (wrong["count"], wrong["change"], wrong["right"], wrong["shade"]) == (
        "9",
        "-1",
        False,
        30,
    )


def test_many_classes_are_a_picture_and_those_with_most_flips() -> None:
    count = 30
    square = [[0] * count for _ in range(count)]
    many = {
        **{key: [10] * count for key in ("images", "base", "final", "lost")},
        "gained": list(range(count)),
        "confusion": {"base": square, "final": square},
    }
    found = class_block({"classes": many}, [f"class {n}" for n in range(count)])
    assert found is not None
    assert (len(found.rows), len(found.more)) == (20, count)
    assert found.rows[0]["name"] == "class 29"
    assert found.matrix == []
    assert found.marked == 0, "10 lost and none gained is chance among 30 classes"
    assert found.plot.startswith("<svg ")
    without = class_block({"classes": {**many, "confusion": None}}, [])
    assert without is not None
    assert (without.plot, without.pairs, without.rows[0]["name"]) == ("", [], "29")


def test_runs_of_older_releases_have_no_classes() -> None:
    assert class_block({}, ["cat"]) is None
