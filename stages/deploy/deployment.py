"""What every format is made from, and the one way in which it writes a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import onnx

from pipeline.preprocessing import Preprocessing

INPUT, OUTPUT = "pixel_values", "logits"
"""Names of the networks' input and output: those that Hugging Face's loaders feed and read."""
Files = dict[str, bytes]
Writer = Callable[["Deployment"], Files]


@dataclass(frozen=True)
class Deployment:
    """The facts of one run that a folder is made from.

    Attributes:
        run: name of the run.
        networks: by precision, "fp32" and where made "int8" and "fp16", ready to be handed over.
        chosen: precision of the one that is delivered.
        reason: why.
        uint8: the chosen one with preprocessing and softmax as operators.
        classes: names, by index.
        card: `data.json`, what the images are.
        benchmark: `benchmark.json`, what was measured.
        settings: section `deploy` of the config.
        difference: largest difference of a probability, in the uint8 network, from the chosen one.
    """

    run: str
    networks: Mapping[str, onnx.ModelProto]
    chosen: str
    reason: str
    uint8: onnx.ModelProto
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    card: Mapping[str, Any]
    benchmark: Mapping[str, Any]
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    difference: float

    @property
    def labels(self) -> bytes:
        """One class name a line, whatever is in the names."""
        return "".join(" ".join(name.split()) + "\n" for name in self.classes).encode()
