"""A float ONNX file in fp16 by onnxruntime's own converter: made, compared with fp32, and timed.

What a provider computes in fp16 can be told only there: on the CPU onnxruntime converts every node
back to float32, so agreement and time are taken on the provider that the file is meant for. Values
beyond fp16's range are found in float32 beforehand, and nodes that see them stay float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper

from pipeline.errors import ArtifactError
from pipeline.run.store import write_bytes
from pipeline.run.variants import FP16, FP32
from pipeline.runtime.providers import find_provider
from pipeline.runtime.quantizer import Quantizer
from stages.benchmark.protocol import Protocol, Setting
from stages.export import check_file
from stages.quantize.calibration import calibrate
from stages.quantize.choice import AUTO, Allowance, choose
from stages.quantize.graph import activations, image_shape, input_sizes, touching
from stages.quantize.images import Batches
from stages.quantize.report import Score, Timing
from stages.quantize.scoring import Scorer
from stages.quantize.timing import time_pair
from stages.quantize.workbench import Progress

_MOST = 65504  # that fp16 holds
_LARGEST = _MOST / 4  # with room for images that were not seen
_IMAGES = 64  # for the largest values, which vary little between images
ALLOWANCE = Allowance(drop=0.5, top1_agreement=0.99, output_error=0.02, precision=FP16)
"""Round-off of 11 bits through a hundred layers is a tenth of this error."""


@dataclass(frozen=True)
class HalfReport:
    """The outcome for one file.

    Attributes:
        chosen: "fp16" where it is faster and within the allowance, else "fp32".
        reason: why, in one sentence.
        score: against fp32, on the provider; None where it does not run.
        timing: against fp32; None likewise.
        float_nodes: names of the nodes that stayed float32.
        out_of_range: those of them that see values or have weights too large for fp16.
        file: name, sha256 and bytes of the fp16 file; empty where there is none.
    """

    chosen: str
    reason: str
    score: Score | None = None
    timing: Timing | None = None
    float_nodes: tuple[str, ...] = ()
    out_of_range: tuple[str, ...] = ()
    file: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, the value of `fp16` in `quantize.json`."""
        score = self.score
        accuracy = score and {
            "fp32": score.fp32_accuracy,
            "fp16": score.accuracy,
            "drop": score.drop,
            "drop_ci95": list(score.drop_ci95),
            "images": score.images,
        }
        return {
            "chosen": self.chosen,
            "reason": self.reason,
            "accuracy": accuracy,
            "parity": score
            and {"top1_agreement": score.top1_agreement, "output_error": score.output_error},
            "speed": asdict(self.timing) if self.timing else None,
            "float_nodes": list(self.float_nodes),
            "out_of_range": list(self.out_of_range),
            "file": self.file,
        }


def half_onnx(
    path: Path | str,
    out: Path | str,
    calibration: Batches,
    search: Batches,
    *,
    allowance: Allowance = ALLOWANCE,
    keep: Sequence[str] = (),
    search_images: int = 5000,
    setting: Setting | None = None,
    protocol: Protocol | None = None,
    progress: Progress = lambda what: None,
) -> HalfReport:
    """Write the fp16 form of `path`, with float32 input and output, to `out`.

    `out` is written wherever onnxruntime takes the graph, also where fp32 is chosen: the report
    says which one to deliver. `path` is opened in child processes and never changed.

    Args:
        calibration: images that the largest values are looked for on; labels are not read.
        search: labelled images on which it is compared with fp32.
        keep: types of nodes that stay float32, besides those without a float16 kernel.
        search_images: most that are used of them.
        setting: provider, batch and threads timed; one image on one thread of the CPU where None.
        protocol: how long it is timed where it is close; the benchmark's where None.
        progress: told what begins.
    Raises:
        ArtifactError: `path` is no float32 ONNX classifier or quantised already; or no images.
        EnvironmentProblem: the provider is not there, or `out` cannot be written.
    """
    path, out = Path(path), Path(out)
    setting, protocol = setting or Setting(), protocol or Protocol()
    progress(f"{path.name} in fp16")
    with Quantizer() as quantizer:
        proto = onnx.ModelProto.FromString(quantizer.hold(path))
        fixed = input_sizes(proto)[0]
        beyond = _beyond(quantizer, proto, calibration, fixed)
        large = list(dict.fromkeys([*touching(proto, beyond), *_with_large_weights(proto)]))
        try:
            model, stayed = quantizer.halve(keep, large)
        except ArtifactError as error:
            return HalfReport(FP32, f"fp16 could not be made of it: {error.message}")
    provider = find_provider(setting.provider).name
    scorer = Scorer(path, search, search_images, provider=provider, fixed=fixed)
    try:
        progress("scoring fp16")
        score = scorer.score(model)
        progress("timing fp16")
        timing = time_pair(path, model, setting, image_shape(proto), protocol)
    except ArtifactError as error:
        return HalfReport(FP32, f"fp16 does not run: {error.message}")
    finally:
        scorer.close()
    chosen, reason = choose(AUTO, score, timing, allowance)
    digest = write_bytes(out, model, check=partial(check_file, label=str(out)))
    file = {"name": out.name, "sha256": digest, "bytes": len(model)}
    return HalfReport(chosen, reason, score, timing, stayed, tuple(large), file)


def _with_large_weights(proto: onnx.ModelProto) -> list[str]:
    """Names of the nodes with weights that fp16 has no room for; bounds may as well be its own."""
    found = [
        tensor.name
        for tensor in proto.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT
        and _exceeds(onnx.numpy_helper.to_array(tensor))
    ]
    bounds = {node.name for node in proto.graph.node if node.op_type == "Clip"}
    return [name for name in touching(proto, found) if name not in bounds]


def _exceeds(weights: np.ndarray) -> bool:
    """Whether a finite one is too large; infinity is infinite in fp16 too."""
    return bool((np.isfinite(weights) & (np.abs(weights) > _MOST)).any())


def _beyond(
    quantizer: Quantizer, proto: onnx.ModelProto, images: Batches, fixed: int | None
) -> list[str]:
    """Activations with values that fp16 has no room for."""
    seen = calibrate(quantizer, activations(proto), images, _IMAGES, fixed)
    ranges = seen.ranges("minmax")
    found = [name for name, ends in ranges.items() if max(map(abs, ends)) > _LARGEST]
    return [*found, *seen.infinite]
