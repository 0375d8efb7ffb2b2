"""Documents of a run, as small as the report needs them."""

from __future__ import annotations

from typing import Any

from pipeline.paired import paired_change
from stages.report.documents import RoundDocuments, RunDocuments


def side(accuracy: float, macs: int) -> dict[str, Any]:
    latency = {"p50": macs / 1000, "p90": macs / 900, "p99": None}
    return {
        "accuracy": accuracy,
        "macs": macs,
        "params": macs // 10,
        "bytes": macs // 2,
        "latency_ms": latency,
    }


def setting(verdict: str, ratio: float, low: float, high: float) -> dict[str, Any]:
    return {
        "provider": "CPUExecutionProvider",
        "batch": 1,
        "threads": 1,
        "precision": "fp32",
        "verdict": verdict,
        "ratio": ratio,
        "ci95": [low, high],
        "aa_ci95": [0.97, 1.02],
        "a": side(0.9, 2000),
        "b": side(0.9, 1000),
    }


CHANGE = {
    "images": 50,
    "gained": 3,
    "lost": 4,
    "p_value": 1.0,
    "points": -2.0,
    "ci95": [-12.0, 9.0],
    "shown": False,
}


def variant(
    name: str, accuracy: float, macs: int, ratio: float, chosen: bool = False
) -> dict[str, Any]:
    measured = setting("faster", ratio, ratio - 0.1, ratio + 0.1)
    return {
        "name": name,
        "precision": "int8" if "int8" in name else "fp32",
        **side(accuracy, macs),
        **{key: measured[key] for key in ("ratio", "ci95", "verdict")},
        "accuracy_change": None if name == "base" else CHANGE,
        "chosen": chosen,
        "settings": [measured] if name != "base" else [],
    }


BENCHMARK = {
    "settings": [setting("faster", 1.9, 1.8, 2.0), setting("no difference shown", 1.1, 0.9, 1.2)],
    "data": {"label": "tiny [/a] set", "test_images": 50},
    "base": side(0.9, 2000),
    "final": {**side(0.893, 1000), "precision": "int8"},
    "variants": [
        variant("base", 0.9, 2000, 1.0),
        variant("base_int8", 0.891, 1400, 1.4),
        variant("final", 0.895, 1000, 1.6),
        variant("final_int8", 0.893, 900, 1.9, chosen=True),
    ],
    "remarks": ["INT8 [/a] alone"],
}
PARITY = {
    "base": {"top1_agreement": 0.999, "max_abs": 1e-6},
    "final": {"top1_agreement": 1.0, "max_abs": 2e-6},
}
SCHEME = {
    "name": "U8S8",
    "activation": "uint8",
    "weight": "int8",
    "operators": "all",
    "per_channel": True,
    "reduce_range": True,
    "calibrator": "percentile 99.99",
}
TRIED = {
    "scheme": SCHEME,
    "accuracy": None,
    "top1_agreement": None,
    "images": 0,
    "ratio": 1.5,
    "ci95": None,
    "float_nodes": 0,
}
QUANTIZATION: dict[str, Any] = {
    "mode": "auto",
    "chosen": "int8",
    "reason": "INT8 is 1.20× (1.10 to 1.30) as fast as fp32",
    "scheme": SCHEME,
    "accuracy": {"fp32": 0.9, "int8": 0.899},
    "parity": {"top1_agreement": 0.98, "output_error": 0.05},
    "float_nodes": [f"conv{index}" for index in range(10)],
    "tried": [
        TRIED,
        {**TRIED, "accuracy": 0.9, "top1_agreement": 0.97, "images": 1000, "ci95": [1.4, 1.6]},
    ],
    "base": {"parity": {"top1_agreement": 0.99, "output_error": 0.04}},
}


def search_document() -> dict[str, Any]:
    """A search.json under a latency budget: four candidates, the third the best."""
    rows = [
        {"strategy": "rl", "trials": 4, "score": -0.1, "accuracy": 0.8, "images": 40},
        {"strategy": "uniform", "trials": 1, "score": -0.4, "accuracy": 0.6, "images": 40},
    ]
    costs = {"macs": 500, "params": 50, "latency": 0.5}
    points = zip((-0.9, -0.3, -0.1, -0.6), (-0.9, -0.3, -0.1, -0.1), strict=True)
    return {
        "strategy": "rl",
        "score_name": "divergence",
        "trials": 4,
        "base": {"macs": 1000, "params": 200, "accuracy": 0.9},
        "best": {**rows[0], **costs, "images": 160, "score": -0.12},
        "strategies": [{**row, **costs} for row in rows],
        "finalists": [{**rows[0], **costs}] * 2,
        "curve": [
            {"trial": n, "score": s, "best": b, "stopped": n == 3}
            for n, (s, b) in enumerate(points)
        ],
        "groups": [{"id": "stem", "size": 16, "kept": 10, "others": {"rl": 10, "uniform": 8}}],
        "budget": {
            "metric": "latency",
            "asked": 0.5,
            "limit": 0.5,
            "realised": {
                "macs": {"base": 1000, "pruned": 500, "fraction": 0.5},
                "params": {"base": 200, "pruned": 50, "fraction": 0.25},
                "latency": {"base": 1.0, "pruned": 0.49, "fraction": 0.49},
            },
        },
        "latency": {
            "provider": "CPUExecutionProvider",
            "batch": 1,
            "threads": 1,
            "base_ms": 2.0,
            "budget": 0.5,
            "predicted": 0.49,
            "measured": 0.5,
            "samples": 40,
            "median_error_cross_validated": 0.031,
            "median_error_fresh": 0.02,
            "fresh": [{"predicted": 0.49, "measured": 0.5}, {"predicted": 0.4, "measured": 0.41}],
        },
    }


def front_document() -> dict[str, Any]:
    """A front.json by latency: three points, the cheapest one predicted."""
    rows = zip((0.2, 0.5, 1.0), (0.6, 0.8, 0.9), (False, True, True), strict=True)
    points = [
        {"latency": cost, "accuracy": accuracy, "measured": measured}
        for cost, accuracy, measured in rows
    ]
    return {"metric": "latency", "original": {"accuracy": 0.9, "macs": 1000}, "points": points}


def trials(search: dict[str, Any]) -> list[dict[str, Any]]:
    """Its trials.jsonl: the header, a timing, and four candidates of 4, 8, 10 and 6 channels."""
    head: list[dict[str, Any]] = [
        {"journal": 1},
        {"phase": "latency", "kept": [8], "fraction": 0.4},
    ]
    for point, kept in zip(search["curve"], (4, 8, 10, 6), strict=True):
        cost = {"macs": 50 * kept, "params": 5 * kept, "latency": kept / 20}
        head.append({"phase": "rl", "kept": [kept], "eligible": True, **cost, **point})
    return head


def run_documents() -> RunDocuments:
    """A whole run, with everything that the page can show, and markup in every name of a user."""
    search = search_document()
    search["groups"][0]["id"] = "<i>stem"
    distillation = {
        "search_accuracy": {"teacher": 0.9, "cut": 0.8, "batchnorm": 0.79, "final": 0.8},
        "search_change": paired_change(40, 1, 5),
        "training": None,
        "mode": "distill",
        "kept": "cut",
    }
    layer = {"name": "<i>conv", "type": "Conv2d", "in_channels": 3, "out_channels": 16, "macs": 900}
    cut = {
        "layers": {"before": [layer], "after": [{**layer, "out_channels": 8, "macs": 450}]},
        "proof": {"relative": 1e-16, "dtype": "float64", "images": 8, "tolerance": 1e-9},
    }
    exported = {"exporter": "torch.export", "opset": 20}
    return RunDocuments(
        data={"classes": ["<i>cat", "dog"]},
        train={"images": {"search": 40}, "search_accuracy": 0.9},
        graph={"groups": [{"id": "<i>stem", "prunable": False, "reason": "<i>output"}]},
        rotation={"groups": [], "difference": 0.0},
        plan={"metadata": {"align": 8}},
        search=search,
        front=front_document(),
        trials=trials(search),
        cut=cut,
        reconstruction={"accuracy": {"original": 0.9, "cut": 0.1, "reconstructed": 0.8}},
        distillation=distillation,
        parity={
            "images": 40,
            "base": PARITY["base"],
            "final": {**PARITY["final"], "export": exported},
        },
        quantization=QUANTIZATION,
        benchmark=benchmark_document(),
        rounds=[RoundDocuments(search, cut, distillation)],
        manifests={
            "benchmark": {"started": "2026-11-27T14:00:06+00:00", "outputs": {}},
            "deploy": {"outputs": {"model.onnx": {"bytes": 767_000, "sha256": "0" * 64}}},
        },
    )


def benchmark_document() -> dict[str, Any]:
    """A benchmark.json of this release: with classes, a profile, and the spread of calls."""
    node = {"us": 10.0}
    layers = [{"layer": "<i>conv", "op": "Conv", "a": node, "b": node}]
    why = {
        "a": {"us": 12.0, "gmacs_per_s": 9.0},
        "b": {"us": 11.0, "gmacs_per_s": 8.0},
        "peak_gmacs_per_s": 40.0,
        "layers": layers,
        "by_op": {"Conv": {"a_us": 10.0, "a_nodes": 1, "b_us": 10.0, "b_nodes": 1}},
        "causes": ["<i>the cause"],
    }
    widths = {"kind": "conv 3x3", "channels": 16, "us": 4.0}
    return {
        **BENCHMARK,  # type: ignore[dict-item]
        "settings": BENCHMARK["settings"][:1],  # type: ignore[index]
        "variants": [
            {**row, "memory_bytes": 22_000_000, "quantiles_ms": {"5": 1.0, "50": 2.0}}
            for row in BENCHMARK["variants"]  # type: ignore[attr-defined]
        ],
        "classes": {
            "images": [25, 25],
            "base": [23, 22],
            "final": [22, 22],
            "gained": [1, 1],
            "lost": [2, 1],
            "confusion": {"base": [[23, 2], [3, 22]], "final": [[22, 3], [3, 22]]},
        },
        "why": why,
        "alignment": {
            "multiple": 8,
            "cost": {"8": 1.0},
            "provider": "CPUExecutionProvider",
            "threads": 1,
            "rows": [widths, {**widths, "channels": 20}],
        },
        "machine": {
            "id": "0123",
            "cpu": "<i>EPYC",
            "cores": 2,
            "load": [1.5, 1.0, 1.0],
            "system": "Linux",
        },
    }
