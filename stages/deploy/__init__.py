"""A folder to hand over: the network, its labels, and whatever others need to run it.

`Classifier` needs onnxruntime, NumPy and Pillow only; what writes the folder is in `formats/`.
"""

from __future__ import annotations

from stages.deploy.classifier import Classifier
from stages.deploy.predict import Answer, Label

__all__ = ["Answer", "Classifier", "Label"]
