"""INT8 by scheme on torchvision's networks at 224 px: speed, fusion, error, and what `auto` takes.

    python -P tests/bench/int8_table.py [--only NAME,NAME] [--workers 8] [--seconds 1.0]
        [--json ROWS] [--repeat 20]

Random weights with batch norms that fit them, and random images: times and what stays float are
those of any weights, accuracy means nothing, and the error of the outputs is the worst case.
Each network is a process of its own, `--workers` of them side by side; times are of one thread.
`--repeat` quantises each network so often and times what is delivered once more: no interval of
a delivered INT8 file may lie below 1.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[2])]

import numpy as np  # noqa: E402
import torch  # noqa: E402
import zoo  # noqa: E402
from torch import nn  # noqa: E402

from pipeline.models.resnet_cifar import resnet20  # noqa: E402
from pipeline.system import int8_features  # noqa: E402
from stages.benchmark import Protocol, fingerprint  # noqa: E402
from stages.export import export_onnx  # noqa: E402
from stages.quantize import (  # noqa: E402
    SCHEMES,
    Allowance,
    ArrayImages,
    Workbench,
    quantize_onnx,
)

NETWORKS = (
    "resnet20", "resnet18", "resnet50", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0",
    "shufflenet_v2_x1_0", "densenet121", "regnet_x_400mf", "convnext_tiny",
)  # fmt: skip
LIMITLESS = Allowance(drop=100, top1_agreement=0, output_error=1e9)  # random weights: speed alone
CALIBRATION, SEARCH = 32, 32  # images


def network(name: str) -> tuple[nn.Module, int]:
    """In eval mode, batch norms fitted to random images; and the edge of its images."""
    if name == "resnet20":
        torch.manual_seed(0)
        model, size = resnet20(num_classes=10), 32
        zoo.randomise(model)
    else:
        model, size = zoo.build(name), 224
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
        norm.reset_running_stats()
        norm.train()
    if norms:
        with torch.no_grad():
            model(torch.from_numpy(pictures(8, size, seed=2)))
    return model.eval(), size


def pictures(count: int, size: int, seed: int) -> np.ndarray:
    """(count, 3, size, size) float32, blurred noise and some sharp."""
    generator = np.random.default_rng(seed)
    coarse = generator.normal(0, 1, (count, 3, size // 8, size // 8)).repeat(8, 2).repeat(8, 3)
    return (coarse + generator.normal(0, 0.3, coarse.shape)).astype(np.float32)


def row(name: str, seconds: float, schemes: bool) -> dict[str, Any]:
    """One network: times by scheme, what `auto` delivers, and that timed once more."""
    torch.set_num_threads(1)
    began = time.monotonic()
    model, size = network(name)
    with tempfile.TemporaryDirectory(prefix="int8-table-") as folder:
        path, out = Path(folder, f"{name}.onnx"), Path(folder, "int8.onnx")
        export_onnx(model, torch.zeros(1, 3, size, size), path, verify=False)
        protocol = Protocol(min_seconds=seconds)
        found: dict[str, Any] = {"network": name, "size": size}
        with Workbench(path, protocol=protocol) as bench:
            found["schemes"] = scheme_rows(bench) if schemes else []
        images = (
            ArrayImages(pictures(CALIBRATION, size, 0)),
            ArrayImages(pictures(SEARCH, size, 1)),
        )
        report = quantize_onnx(path, out, *images, allowance=LIMITLESS, protocol=protocol)
        found["auto"] = report.to_dict()
        if report.chosen == "int8":
            with Workbench(path, protocol=protocol) as bench:
                found["again"] = asdict(bench.time(out.read_bytes()))
    return {**found, "seconds": round(time.monotonic() - began, 1)}


def scheme_rows(bench: Workbench) -> list[dict[str, Any]]:
    """Every scheme timed with an interval, as a graph whose ranges are made up."""
    rows = []
    for scheme in SCHEMES:
        graph = bench.sketch(scheme)
        if graph is not None:
            timing = asdict(bench.time(graph.model))
            nodes = {"float_nodes": len(graph.float_nodes)}
            rows.append({"name": scheme.name, "operators": scheme.operators, **nodes, **timing})
    return rows


def in_a_process(name: str, seconds: float, schemes: bool) -> dict[str, Any]:
    """`row` in a child; what it says where it fails."""
    command = [sys.executable, "-P", __file__, "--one", name, "--seconds", str(seconds)]
    command += ["--schemes"] if schemes else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["?"])[-1]
        return {"network": name, "failed": said}
    return json.loads(done.stdout.strip().splitlines()[-1])


def show(rows: list[dict[str, Any]]) -> None:
    """A line a network: fp32, each scheme, and what `auto` takes."""
    for one in rows:
        if "failed" in one:
            print(f"{one['network']:20} failed: {one['failed']}")
            continue
        auto = one["auto"]
        speed, parity = auto["speed"], auto["parity"] or {}
        base = [one["schemes"][0]["ms"][0]] if one["schemes"] else speed["ms"][:1] if speed else [0]
        said = ", ".join(
            f"{s['name']}{'' if s['operators'] == 'all' else ' ' + s['operators']} {_times(s)}"
            for s in one["schemes"]
        )
        print(f"{one['network']:20} fp32 {base[0]:.2f} ms; {said}")
        print(
            f"{'':20} auto: {auto['chosen']}, {_times(speed) if speed else '–'}; "
            f"{_scheme(auto)}; {len(auto['float_nodes'])} nodes float; "
            f"error {parity.get('output_error', 0):.3f}; {one['seconds']:.0f} s; {auto['reason']}"
        )


def _times(timing: dict[str, Any]) -> str:
    low, high = timing["ci95"]
    return f"{timing['ratio']:.2f}× ({low:.2f}–{high:.2f})"


def _scheme(auto: dict[str, Any]) -> str:
    scheme = auto["scheme"]
    if scheme is None:
        return "none"
    bits = " 7-bit" if scheme["reduce_range"] else ""
    return f"{scheme['name']}{bits} {scheme['operators']}, {scheme['calibrator']}"


def show_repeated(rows: list[dict[str, Any]]) -> None:
    """How often INT8 was delivered, and how often that was slower than fp32."""
    for name in dict.fromkeys(one["network"] for one in rows):
        own = [one for one in rows if one["network"] == name and "failed" not in one]
        again = [one["again"] for one in own if "again" in one]
        slower = sum(timing["ci95"][1] < 1 for timing in again)
        ratios = sorted(timing["ratio"] for timing in again) or [1.0]
        print(
            f"{name:20} {len(own)} runs: INT8 delivered in {len(again)}, timed anew "
            f"{ratios[0]:.2f} to {ratios[-1]:.2f}×; slower than fp32 in {slower}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(NETWORKS))
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 1) // 2))
    parser.add_argument("--seconds", type=float, default=1.0, help="of each side of a comparison")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--json", type=Path, help="rows, written as they come")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--schemes", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(row(options.one, options.seconds, options.schemes)))
        return
    began = time.monotonic()
    jobs = [name for _ in range(options.repeat) for name in options.only.split(",")]
    machine = fingerprint()
    print(f"{machine.get('cpu')}; {', '.join(int8_features())}; {options.workers} side by side")
    rows: list[dict[str, Any]] = []
    with ThreadPoolExecutor(options.workers) as pool:
        how = (options.seconds, options.repeat == 1)
        for one in pool.map(lambda name: in_a_process(name, *how), jobs):
            rows.append(one)
            show([one])
            if options.json:
                options.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1))
    if options.repeat > 1:
        show_repeated(rows)
    print(f"{time.monotonic() - began:.0f} s in all")


if __name__ == "__main__":
    main()
