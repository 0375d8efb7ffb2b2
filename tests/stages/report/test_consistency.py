"""Documents of one run agree; those that were made up are told apart."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from report_documents import BENCHMARK, PARITY, QUANTIZATION

from stages.report.consistency import disagreements
from stages.report.summary import PLACES, summarise

FILES = {
    "base": "export/base.onnx",
    "base_int8": "quantize/base_int8.onnx",
    "final": "export/model.onnx",
    "final_int8": "quantize/model_int8.onnx",
}
Documents = dict[str, Any]


@pytest.fixture
def documents() -> Documents:
    """Summary, benchmark, parity, quantization and manifests' outputs of one run."""
    found = copy.deepcopy(
        {"benchmark": BENCHMARK, "parity": PARITY, "quantization": QUANTIZATION, "outputs": {}}
    )
    benchmark = found["benchmark"]
    for row in benchmark["variants"]:
        row["sha256"] = f"of {row['name']}"
        found["outputs"][FILES[row["name"]]] = {"sha256": row["sha256"], "bytes": row["bytes"]}
    chosen = benchmark["variants"][3]
    benchmark["variants"][0]["verdict"] = "no difference shown"  # of the original with itself
    benchmark["base"] = {**benchmark["base"], "latency_ms": benchmark["variants"][0]["latency_ms"]}
    final = ("accuracy", "macs", "bytes", "sha256", "latency_ms", "precision")
    benchmark["final"] = {
        "params": chosen["params"],
        "of_the_side_alone": 1,
        **{key: chosen[key] for key in final},
    }
    benchmark["settings"][0] |= {key: chosen[key] for key in ("ratio", "ci95", "verdict")}
    benchmark["classes"] = {
        "images": [20, 30],
        "base": [19, 26],
        "final": [18, 27],
        "gained": [1, 2],
        "lost": [2, 1],
        "confusion": {"base": [[19, 1], [4, 26]], "final": [[18, 2], [3, 27]]},
    }
    for side in ("base", "final"):
        benchmark[side]["accuracy"] = 0.9
    benchmark["variants"][0]["accuracy"] = chosen["accuracy"] = 0.9
    found["parity"]["base"]["sha256"], found["parity"]["final"]["sha256"] = "of base", "of final"
    found["quantization"]["file"] = {"sha256": "of final_int8"}
    found["quantization"]["base"]["file"] = {"sha256": "of base_int8"}
    found["summary"] = summarise("r", benchmark, found["parity"], found["quantization"], **PLACES)
    return found


def test_documents_as_the_stages_write_them_agree(documents: Documents) -> None:
    assert disagreements(**documents) == []


def test_what_an_older_release_did_not_write_is_not_missed(documents: Documents) -> None:
    for row in (documents["summary"]["base"], *documents["summary"]["variants"]):
        row.pop("accuracy_change", None)
        row.pop("near_chance", None)
    del documents["benchmark"]["classes"]
    assert disagreements(**documents) == []


def test_a_file_in_fp16_is_the_one_that_was_compared(documents: Documents) -> None:
    documents["quantization"]["fp16"] = {"file": {"sha256": "of final_fp16"}}
    documents["outputs"]["quantize/model_fp16.onnx"] = {"sha256": "of final_fp16", "bytes": 1}
    assert disagreements(**documents) == []
    documents["outputs"]["quantize/model_fp16.onnx"]["sha256"] = "of another"
    assert disagreements(**documents) == [
        "quantize.json: final was another file than quantize/model_fp16.onnx"
    ]


def _verdict(d: Documents) -> None:
    d["benchmark"]["variants"][1]["verdict"] = "slower"
    d["summary"]["variants"][1]["verdict"] = "slower"


FORGED: dict[str, tuple[Callable[[Documents], object], str]] = {
    "summary": (lambda d: d["summary"]["final"].update(accuracy=0.99), "summary.json: final"),
    "speedup": (lambda d: d["summary"]["speedup"].update(ratio=9.0), "summary.json: speedup"),
    "file": (
        lambda d: d["outputs"]["quantize/model_int8.onnx"].update(sha256="x"),
        "benchmark.json: final_int8",
    ),
    "parity": (lambda d: d["parity"]["final"].update(sha256="x"), "parity.json: final"),
    "quantized": (lambda d: d["quantization"]["file"].update(sha256="x"), "quantize.json: final"),
    "chosen": (lambda d: d["quantization"].update(chosen="fp32"), "another variant is delivered"),
    "row": (lambda d: d["benchmark"]["final"].update(accuracy=0.99), "final is not the row"),
    "setting": (lambda d: d["benchmark"]["settings"][0].update(ratio=5.0), "its first setting"),
    "classes": (lambda d: d["benchmark"]["classes"]["images"].append(1), "number of images"),
    "class": (lambda d: d["benchmark"]["classes"]["final"].append(1), "the classes of final"),
    "confusion": (
        lambda d: d["benchmark"]["classes"]["confusion"]["base"].reverse(),
        "the confusion of base",
    ),
    "flips": (lambda d: d["benchmark"]["classes"]["gained"].reverse(), "gained and lost"),
    "verdict": (_verdict, "slower with an interval"),
}


@pytest.mark.parametrize("what", FORGED)
def test_what_was_made_up_is_named(documents: Documents, what: str) -> None:
    forge, said = FORGED[what]
    forge(documents)
    assert any(said in sentence for sentence in disagreements(**documents))
