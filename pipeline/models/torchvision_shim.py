"""Import torchvision, also where its wheel was built for another torch than the one installed.

torchvision's Python code registers fake kernels for `torchvision::nms` at import. When the compiled
extension cannot be loaded (a CUDA wheel beside a CPU torch, say) those operators do not exist and
the import dies with "operator torchvision::nms does not exist". Declaring the two schemas first
lets the import pass; models, datasets and transforms.v2 need neither operator.
"""

from __future__ import annotations

import sys
from types import ModuleType

import torch

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_library: torch.library.Library | None = None  # keeps the declarations alive


def import_torchvision() -> ModuleType:
    """The `torchvision` package; its missing operators are declared only when the import needs it.

    Raises:
        ImportError: it is not installed.
    """
    global _library
    try:
        import torchvision
    except RuntimeError as error:
        # declared before, and still not enough: the cause is another one
        if "torchvision::" not in str(error) or _library is not None:
            raise
        # What the failed import left half-made would be found again.
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        _library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            _library.define(operator + _SCHEMA)
        import torchvision
    return torchvision
