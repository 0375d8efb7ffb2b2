"""Bytes of tensors that are alive, at their peak: what torch counts on a GPU, counted on any
device.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Allocated(TorchDispatchMode):
    """Within it, storages that operators return are counted for as long as they live.

    Attributes:
        peak: bytes of those alive at once, at most.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._storages: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and tensor.layout is torch.strided:
                storage = tensor.untyped_storage()
                self._storages[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        gone = [at for at, (storage, _) in self._storages.items() if storage.expired()]
        for at in gone:
            del self._storages[at]
        self.peak = max(self.peak, sum(size for _, size in self._storages.values()))
        return out
