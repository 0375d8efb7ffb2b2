"""What channels of like size are worth: INT8 against fp32 on search images, with and without.

    python tests/bench/equalization.py CONFIG --run-dir RUN [--set KEY=VALUE]...

RUN must hold `export/`. The best calibrator of U8S8 in each column, biases corrected.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from pipeline.config.load import find_config, load_config
from pipeline.data import load_splits
from stages.quantize import CALIBRATORS, SCHEMES, Workbench
from stages.quantize.report import Score
from stages.quantize.stage import drawn


def best(bench: Workbench) -> Score:
    """Of U8S8 with the calibrator of the smallest error, all but the slow one."""
    scheme = replace(SCHEMES[0], reduce_range=bench.saturates(SCHEMES[0]))
    graphs = [bench.quantize(replace(scheme, calibrator=one.name)) for one in CALIBRATORS[:-1]]
    corrected = [bench.correct_biases(graph) for graph in graphs if graph]
    scores = [bench.score(graph.model) for graph in corrected if graph]
    return min(scores, key=lambda score: score.output_error)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config")
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[])
    options = parser.parse_args()
    config = load_config(find_config(options.config), options.set)
    splits, images = load_splits(config.data, seed=config.seed), config.quantize.images
    calibration = drawn(splits.train, images, config.seed)
    search = drawn(splits.search, 2000, config.seed)
    for name in ("base.onnx", "model.onnx"):
        with Workbench(options.run_dir / "export" / name) as bench:
            sketch = bench.sketch(SCHEMES[0])
            assert sketch is not None
            bench.score_on(search, len(search))
            bench.calibrate(sketch.tensors, calibration, images)
            scores = {"plain": best(bench)}
            equalised = bench.equalize()
            if equalised:
                bench.replace_float_graph(equalised)
                bench.calibrate(sketch.tensors, calibration, images)
                scores["equalised"] = best(bench)
        for how, score in scores.items():
            print(
                f"{name:12} {how:10} error {score.output_error:.4f}, same class "
                f"{score.top1_agreement:.1%}, {score.drop:+.2f} points, {score.images} images"
            )


if __name__ == "__main__":
    main()
