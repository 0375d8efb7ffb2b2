"""Networks: built in, torchvision's, or the user's own; loaded and saved without pickle.

`build_model` makes an untrained one, `adopt_weights` fills it, `save_model` and `load_model` keep
it as JSON and safetensors, whatever has been cut from it.
"""

from __future__ import annotations

from pipeline.models.files import ModelFile, load_model, read_model_file, save_model
from pipeline.models.folding import fold_standardised_weights
from pipeline.models.registry import BUILTIN, build_model
from pipeline.models.source import ModelSource, source_of
from pipeline.models.weights import adopt_weights, find_weights, how_trained, load_weights

__all__ = [
    "BUILTIN",
    "ModelFile",
    "ModelSource",
    "adopt_weights",
    "build_model",
    "find_weights",
    "fold_standardised_weights",
    "how_trained",
    "load_model",
    "load_weights",
    "read_model_file",
    "save_model",
    "source_of",
]
