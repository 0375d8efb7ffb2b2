"""`import torchvision`, also where its wheel was built for another torch than the one installed.

torchvision's Python code registers fake kernels for `torchvision::nms` at import. When the compiled
extension cannot be loaded (a CUDA wheel beside a CPU torch, say) those operators do not exist and
the import dies with "operator torchvision::nms does not exist". Declaring the two schemas first
lets the import pass; models, datasets and transforms.v2 need neither operator.

Whoever imports it, a user's module or timm, meets `Finder` first, which imports it as it is, and
declares the operators only where that fails.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_library: Any = None  # keeps the declarations alive


class Finder(MetaPathFinder):
    """Answers the first import of torchvision, once."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "torchvision":
            return None
        sys.meta_path.remove(self)  # what follows imports it the usual way
        try:
            return ModuleSpec(fullname, _Ready(import_torchvision()))
        except ImportError:  # not installed: for the usual finders to say
            return None


class _Ready(Loader):
    """Hands over a module that is imported already."""

    def __init__(self, module: ModuleType) -> None:
        self.module, self.spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self.module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.spec


def import_torchvision() -> ModuleType:
    """The `torchvision` package; its missing operators are declared only when the import needs it.

    Raises:
        ImportError: it is not installed.
    """
    global _library
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        # declared before, and still not enough: the cause is another one
        if "torchvision::" not in str(error) or _library is not None:
            raise
    import torch

    # What the failed import left half-made would be found again.
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    _library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        _library.define(operator + _SCHEMA)
    return importlib.import_module("torchvision")


def install() -> None:
    """Put the finder in front, unless torchvision has been imported."""
    if "torchvision" not in sys.modules:
        sys.meta_path.insert(0, Finder())
