"""EfficientNet-Lite0 in INT8 on photographs: what is lost against fp32, nodes left float.

    python -P tests/bench/int8_photos.py WEIGHTS TRAIN.parquet OTHER.parquet [--drop 1]
        [--images 64] [--others 300] [--head 1500] [--json REPORT]

Ranges come from TRAIN; choices are made on the first half of OTHER, and the other half, which
nothing was chosen on, says what was lost. As published the network has ImageNet's thousand classes,
which the photographs do not: what is counted then is the photographs whose first answer changes.
With `--head N` its last layer is a logistic regression on N labelled photographs of TRAIN instead,
the rest as published, and what is counted is accuracy in the classes that they have.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[2])]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from efficientnet_lite0 import published  # noqa: E402
from efficientnet_without_labels import SIZE, images_of, photos  # noqa: E402
from pyarrow import parquet  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from stages.export import export_onnx  # noqa: E402
from stages.quantize import Allowance, ArrayImages, quantize_onnx  # noqa: E402
from stages.quantize.report import QuantizeReport, Score  # noqa: E402
from stages.quantize.scoring import Scorer  # noqa: E402

DECAY = 1e-4  # of the head's weights: features of 1,500 photographs would be learnt by heart


def arrays(model: nn.Module, path: Path, count: int) -> np.ndarray:
    """(count, 3, 224, 224) float32, as the network wants them."""
    images = images_of(model, photos(path, count, 0, torch.device("cpu")))
    return torch.cat([x for x, _ in images.batches(32)]).numpy()


def classes(path: Path, count: int) -> np.ndarray:
    """Labels (count,) int64 of the photographs that `arrays` takes."""
    labels = np.asarray(parquet.read_table(path, columns=["label"]).column("label"), np.int64)
    return labels[np.random.default_rng(0).permutation(len(labels))[:count]]


def with_head(model: nn.Module, x: np.ndarray, y: np.ndarray) -> nn.Module:
    """The network with a last layer for other classes: logistic regression on its features."""
    whole = model._fc
    model._fc = nn.Identity()
    with torch.inference_mode():
        found = torch.cat([model(part) for part in torch.from_numpy(x).split(32)])
    features, wanted = found.clone(), torch.from_numpy(y)
    head = nn.Linear(whole.in_features, int(y.max()) + 1)
    steps = torch.optim.LBFGS(head.parameters(), max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        steps.zero_grad()
        value = functional.cross_entropy(head(features), wanted)
        value = value + DECAY * head.weight.square().sum()
        value.backward()
        return value

    steps.step(loss)
    model._fc = head.requires_grad_(False)
    return model.eval()


def show(report: QuantizeReport, unseen: Score) -> None:
    """What was tried, delivered, and is lost on photographs that nothing was chosen on."""
    document = report.to_dict()
    for row in document["tried"]:
        if row["images"]:
            print(
                f"{row['float_nodes']:4} left float, {row['scheme']['calibrator']:17} "
                f"{' + '.join(row['steps']):16} agreement {row['top1_agreement']:.1%}, "
                f"error {row['output_error']:.3f}, {row['images']} images"
            )
    for row in document["curve"]:
        low, high = row["ci95"]
        print(
            f"curve: {row['float_nodes']:3} nodes float, agreement {row['accuracy']:.1%}, "
            f"{row['ratio']:.2f}× ({low:.2f}–{high:.2f})"
        )
    print(f"{report.chosen}: {report.reason}; {len(report.float_nodes)} nodes float")
    print(f"on {unseen.images} photographs nothing was chosen on: {unseen.top1_agreement:.1%}")
    if unseen.accuracy is not None and unseen.fp32_accuracy is not None:
        low, high = unseen.drop_ci95
        print(
            f"accuracy there: fp32 {unseen.fp32_accuracy:.2%}, INT8 {unseen.accuracy:.2%}; "
            f"{unseen.drop:.2f} points lost ({low:.2f} to {high:.2f})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", type=Path)
    parser.add_argument("train", type=Path)
    parser.add_argument("other", type=Path)
    parser.add_argument(
        "--drop", type=float, default=1.0, help="percent of answers that may change"
    )
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--others", type=int, default=300)
    parser.add_argument("--head", type=int, default=0, help="photographs that a new head learns of")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    model, began = published(options.weights), time.monotonic()
    seen, others = (
        arrays(model, path, count)
        for path, count in (
            (options.train, max(options.images, options.head)),
            (options.other, options.others),
        )
    )
    half, labels = len(others) // 2, None
    if options.head:
        model = with_head(model, seen, classes(options.train, len(seen)))
        labels = classes(options.other, len(others))
    choose, judge = (
        ArrayImages(others[part], None if labels is None else labels[part])
        for part in (slice(half), slice(half, None))
    )
    with tempfile.TemporaryDirectory(prefix="int8-photos-") as folder:
        path, out = Path(folder, "lite0.onnx"), Path(folder, "int8.onnx")
        export_onnx(model, torch.zeros(1, 3, SIZE, SIZE), path)
        report = quantize_onnx(
            path, out, ArrayImages(seen[: options.images]), choose,
            allowance=Allowance(options.drop), images=options.images,
            progress=lambda what: print(f"{time.monotonic() - began:6.1f} s {what}", flush=True),
        )  # fmt: skip
        scorer = Scorer(path, judge, len(others) - half)
        unseen = scorer.score(out)
        scorer.close()
    if options.json:
        options.json.write_text(json.dumps({**report.to_dict(), "unseen": vars(unseen)}, indent=1))
    show(report, unseen)


if __name__ == "__main__":
    main()
