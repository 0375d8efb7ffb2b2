"""A model repository for NVIDIA Triton: `tritonserver --model-repository=triton`.

The folder's name is the model's, so that it may be renamed; the configuration names none.
"""

from __future__ import annotations

from stages.deploy.deployment import Deployment, Files
from stages.deploy.networks import PIXELS, PROBABILITIES

FOLDER = "triton/classifier"
_CONFIG = """\
backend: "onnxruntime"
max_batch_size: 32
input [
  {{
    name: "{pixels}"
    data_type: TYPE_UINT8
    dims: [ {height}, {width}, {channels} ]
  }}
]
output [
  {{
    name: "{probabilities}"
    data_type: TYPE_FP32
    dims: [ {classes} ]
    label_filename: "labels.txt"
  }}
]
dynamic_batching {{ }}
"""


def files(made: Deployment) -> Files:
    """The network that takes pixels, so that clients need not know how they are normalised."""
    spec = made.preprocessing
    config = _CONFIG.format(
        pixels=PIXELS,
        probabilities=PROBABILITIES,
        height=spec.height,
        width=spec.width,
        channels=spec.channels,
        classes=len(made.classes),
    )
    return {
        f"{FOLDER}/config.pbtxt": config.encode(),
        f"{FOLDER}/labels.txt": made.labels,
        f"{FOLDER}/1/model.onnx": made.uint8.SerializeToString(),
    }
