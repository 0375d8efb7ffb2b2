"""The summary: numbers are passed on unchanged, under the keys of the contract."""

from __future__ import annotations

from report_documents import BENCHMARK, CHANGE, PARITY, QUANTIZATION

from stages.report.summary import summarise

PLACES = {"fp32": "export/model.onnx", "int8": "quantize/model_int8.onnx"}


def test_summary_has_the_contract_keys_and_the_first_setting() -> None:
    found = summarise("r", BENCHMARK, PARITY, QUANTIZATION, "report/report.html", PLACES)
    assert found["speedup"]["ratio"] == 1.9
    assert found["speedup"]["ci95"] == [1.8, 2.0]
    assert found["data"] == {"name": "tiny [/a] set", "label": "tiny [/a] set", "test_images": 50}
    sides = {"accuracy", "macs", "params", "bytes", "latency_ms"}
    assert set(found["base"]) == sides | {"near_chance"}
    assert set(found["final"]) == sides | {"precision"}
    assert found["final"]["latency_ms"] == {"p50": 1.0, "p90": 1000 / 900}
    assert found["final"]["precision"] == found["speedup"]["precision"] == "int8"
    assert found["onnx"] == "quantize/model_int8.onnx"


def test_every_variant_has_what_a_gate_asks_for() -> None:
    rows = summarise("r", BENCHMARK, PARITY, QUANTIZATION, "", PLACES)["variants"]
    assert [row["name"] for row in rows] == ["base", "base_int8", "final", "final_int8"]
    assert [row["chosen"] for row in rows] == [False, False, False, True]
    assert [row["top1_agreement"] for row in rows] == [0.999, 0.99, 1.0, 0.98]
    assert [row["accuracy_change"] for row in rows] == [None, CHANGE, CHANGE, CHANGE]
    assert [row["params"] for row in rows] == [200, 200, 100, 100]
    asked = {"accuracy", "bytes", "latency_ms", "ratio", "ci95", "verdict", "macs", "precision"}
    assert all(asked <= row.keys() for row in rows)
