"""The summary: numbers are passed on unchanged, under the keys of the contract."""

from __future__ import annotations

from report_documents import BENCHMARK, PARITY

from stages.report.summary import summarise


def test_summary_has_the_contract_keys_and_the_first_setting() -> None:
    found = summarise("r", BENCHMARK, PARITY, "report/report.html", "export/model.onnx")
    assert found["speedup"]["ratio"] == 1.9
    assert found["speedup"]["ci95"] == [1.8, 2.0]
    assert found["data"] == {"name": "tiny [/a] set", "label": "tiny [/a] set", "test_images": 50}
    assert set(found["final"]) == {"accuracy", "macs", "params", "bytes", "latency_ms"}
    assert found["final"]["latency_ms"] == {"p50": 1.0, "p90": 1000 / 900}
    assert found["onnx"] == "export/model.onnx"
