"""Peak memory of a calibration by the number of its images: it must not grow.

    python tests/bench/calibration_memory.py MODEL.onnx IMAGES [--counts 256 1000 10000]

IMAGES is a folder of a layout that rlp recognises. Every count gets a child process of its own,
whose peak resident memory (VmHWM) is read when it has seen the images. onnxruntime's calibraters
keep every activation of every image until the last one: their need is the last column.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from pipeline.runtime.quantizer import Quantizer
from stages.quantize import OPERATORS, SCHEMES
from stages.quantize.calibration import calibrate
from stages.quantize.images import Batches
from stages.quantize.outside import outside_images


def calibrated(path: Path, images: Batches, count: int) -> tuple[float, float, float]:
    """(MB at the peak, seconds, MB of all activations of the images)."""
    scheme = SCHEMES[0]
    begin = time.perf_counter()
    with Quantizer() as quantizer:
        quantizer.prepare(path)
        sketch = quantizer.quantize(
            activation=scheme.activation,
            weight=scheme.weight,
            per_channel=False,
            reduce_range=False,
            operators=OPERATORS[scheme.operators],
        )
        found = calibrate(quantizer, sketch.tensors, images, count, None)
        status = Path(f"/proc/{quantizer.pid}/status").read_text(encoding="ascii")
    peak = int(status.partition("VmHWM:")[2].split()[0]) / 1000
    return peak, time.perf_counter() - begin, found.images * found.bytes_per_image / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--counts", type=int, nargs="+", default=[256, 1000, 10_000])
    arguments = parser.parse_args()
    images = outside_images(arguments.model, arguments.images).calibration
    print(f"{'images':>8} {'peak MB':>9} {'seconds':>9} {'all activations, MB':>21}")
    for count in arguments.counts:
        peak, seconds, held = calibrated(arguments.model, images, count)
        print(f"{count:8d} {peak:9.0f} {seconds:9.1f} {held:21.0f}")


if __name__ == "__main__":
    main()
