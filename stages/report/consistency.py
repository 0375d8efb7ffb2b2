"""Whether the documents of a run say the same: hashes show accidents, this what was made up."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.run.variants import FP16, INT8
from stages.report.summary import PLACES, summarise

Document = Mapping[str, Any]

_FILES = {
    "base": "export/base.onnx",
    "base_int8": "quantize/base_int8.onnx",
    "base_fp16": "quantize/base_fp16.onnx",
    "final": PLACES["onnx"]["fp32"],
    "final_int8": PLACES["onnx"]["int8"],
    "final_fp16": PLACES["onnx"]["fp16"],
}


def disagreements(
    summary: Document,
    benchmark: Document,
    parity: Document,
    quantization: Document,
    outputs: Mapping[str, Document],
) -> list[str]:
    """One sentence for each thing that two documents of a run say differently.

    Args:
        outputs: what manifests say of the files of the run (`sha256`, `bytes`), by their paths
            in it.
    Raises:
        KeyError, TypeError, ValueError, IndexError, AttributeError: a document is not as its stage
            writes it.
    """
    expected = summarise(summary["run"], benchmark, parity, quantization, **PLACES)
    found = [
        f"summary.json: {key} is not what benchmark.json, parity.json and quantize.json give"
        for key in expected
        if _differ(summary[key], expected[key])
    ]
    found += _files(benchmark["variants"], outputs)
    found += _checked(parity, quantization, outputs)
    found += _delivered(benchmark, quantization)
    return [*found, *_verdicts(benchmark), *_classes(benchmark)]


def _differ(one: Any, other: Any) -> bool:
    """Whether two values differ in what both of them have: a later release may write more keys."""
    if isinstance(one, dict) and isinstance(other, dict):
        return any(_differ(one[key], other[key]) for key in one.keys() & other.keys())
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return any(map(_differ, one, other))
    return bool(one != other)


def _files(variants: list[Document], outputs: Mapping[str, Document]) -> Iterator[str]:
    for row in variants:
        there = outputs.get(_FILES[row["name"]], {})
        if any(row[key] != there.get(key) for key in ("sha256", "bytes")):
            yield f"benchmark.json: {row['name']} was another file than {_FILES[row['name']]}"


def _checked(
    parity: Document, quantization: Document, outputs: Mapping[str, Document]
) -> Iterator[str]:
    for network, facts in (("base", quantization["base"]), ("final", quantization)):
        if parity[network]["sha256"] != outputs[_FILES[network]]["sha256"]:
            yield f"parity.json: {network} was another file than {_FILES[network]}"
        for precision, made in ((INT8, facts), (FP16, facts.get("fp16"))):
            name = _FILES[f"{network}_{precision}"]
            if name in outputs and (made or {})["file"]["sha256"] != outputs[name]["sha256"]:
                yield f"quantize.json: {network} was another file than {name}"


def _delivered(benchmark: Document, quantization: Document) -> Iterator[str]:
    chosen = [row for row in benchmark["variants"] if row["chosen"]]
    if [(row["name"].partition("_")[0], row["precision"]) for row in chosen] != [
        ("final", quantization["chosen"])
    ]:
        yield "benchmark.json: another variant is delivered than quantize.json says"
        return
    pairs = (("base", benchmark["variants"][0]), ("final", chosen[0]))
    for side, row in pairs:
        if _differ(benchmark[side], row):
            yield f"benchmark.json: {side} is not the row of that variant"
    first = benchmark["settings"][0]
    if any(first[key] != chosen[0][key] for key in ("ratio", "ci95", "verdict")):
        yield "benchmark.json: its first setting is not the row of the delivered variant"


def _verdicts(benchmark: Document) -> Iterator[str]:
    for row in [*benchmark["settings"], *benchmark["variants"]]:
        low, high = row["ci95"]
        shown = {"faster": low > 1, "slower": high < 1}
        if not shown.get(row["verdict"], True):
            said = f"{row['verdict']} with an interval of {low:.2f} to {high:.2f}"
            yield f"benchmark.json: {said}"


def _classes(benchmark: Document) -> Iterator[str]:
    """Counts by class, where there are any, against the accuracies that they add up to."""
    counts, tested = benchmark.get("classes"), benchmark["data"]["test_images"]
    if counts is None:  # of an older release
        return
    if sum(counts["images"]) != tested:
        yield "benchmark.json: its classes have another number of images than the test split"
        return
    for side in ("base", "final"):
        diagonal = [row[n] for n, row in enumerate((counts["confusion"] or {}).get(side, ()))]
        right = sum(counts[side]) / tested
        if not math.isclose(right, benchmark[side]["accuracy"], abs_tol=1e-9):
            yield f"benchmark.json: the classes of {side} give another accuracy than it has"
        elif diagonal and diagonal != counts[side]:
            yield f"benchmark.json: the confusion of {side} is not that of its classes"
    if any(map(_no_flips, *(counts[key] for key in ("base", "final", "gained", "lost")))):
        yield "benchmark.json: images gained and lost do not lead from base to final"


def _no_flips(base: int, final: int, gained: int, lost: int) -> bool:
    return final - base != gained - lost
