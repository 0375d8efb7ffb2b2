"""`config.json` and `preprocessor_config.json`, as transformers and Optimum read them.

ORTModelForImageClassification.from_pretrained(folder), AutoImageProcessor.from_pretrained(folder)
"""

from __future__ import annotations

from typing import Any

from PIL import Image

from pipeline.preprocessing import CROP, Preprocessing
from pipeline.run.store import dump_json
from stages.deploy.deployment import Deployment, Files


def files(made: Deployment) -> Files:
    """What `ORTModelForImageClassification` and `AutoImageProcessor` read beside the network."""
    return {
        "config.json": dump_json(_config(made)),
        "preprocessor_config.json": dump_json(processor(made.preprocessing)),
    }


def _config(made: Deployment) -> dict[str, Any]:
    return {
        # the loaders want a type that they know; of the network itself only the ONNX file speaks
        "model_type": "resnet",
        "architectures": ["ResNetForImageClassification"],
        "problem_type": "single_label_classification",
        "num_channels": made.preprocessing.channels,
        "image_size": [made.preprocessing.height, made.preprocessing.width],
        "id2label": {str(index): name for index, name in enumerate(made.classes)},
        "label2id": {name: index for index, name in enumerate(made.classes)},
        "_name_or_path": made.run,
    }


def processor(spec: Preprocessing) -> dict[str, Any]:
    """Shorter side and centre crop, or both sides, in the words of two of their processors.

    Neither turns pictures by their EXIF data nor takes grey ones; what is recorded under
    `preprocessing` is exact.
    """
    square = spec.height == spec.width
    common = {
        "do_resize": True,
        "resample": int(Image.Resampling.BILINEAR),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(spec.mean),
        "image_std": list(spec.std),
        "do_convert_rgb": spec.channels == 3,
        "preprocessing": spec.to_dict(),
    }
    sides = {"height": spec.height, "width": spec.width}
    if spec.resize == CROP and square:
        crop = {"size": {"shortest_edge": spec.height}, "do_center_crop": True, "crop_size": sides}
        return {"image_processor_type": "BitImageProcessor", **crop, **common}
    return {"image_processor_type": "ViTImageProcessor", "size": sides, **common}
