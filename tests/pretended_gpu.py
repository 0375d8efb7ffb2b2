"""A GPU that is none: tensors that say they are elsewhere, and compute on the CPU.

A tensor on the CPU meeting one that is not raises here as there, so code that forgets a `.to` or a
`.cpu` fails on a machine without a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _setup_privateuseone_for_python_backend,
)

# torch lets one kind of device be written in Python; a CPU's torch lets no tensor say "cuda"
GPU = torch.device("privateuseone", 0)

aten = torch.ops.aten
_INDEXED = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default}
_INDEXED |= {aten._index_put_impl_.default, aten._unsafe_index.Tensor}
_COPIES = {aten._to_copy.default, aten.copy_.default, aten.copy.default}
_ANY_DEVICE = _COPIES | {aten.set_.source_Tensor}


class OnGpu(Tensor):
    """Claims to be on a GPU; `held` holds the values."""

    held: Tensor

    @staticmethod
    def __new__(cls, real: Tensor) -> OnGpu:
        made = Tensor._make_wrapper_subclass(
            cls, real.shape, strides=real.stride(), storage_offset=real.storage_offset(),
            dtype=real.dtype, layout=real.layout, device=GPU, requires_grad=False,
        )  # fmt: skip
        made.held = real
        return made

    def __init__(self, real: Tensor) -> None: ...

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"OnGpu({self.held!r})"

    __torch_function__ = torch._C._disabled_torch_function_impl

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if id(self) not in memo:
            copied: Tensor = self.detach().clone()
            if isinstance(self, torch.nn.Parameter):
                copied = torch.nn.Parameter(copied, self.requires_grad)
            memo[id(self)] = copied
        return memo[id(self)]

    def tolist(self) -> Any:
        return self.held.tolist()

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise RuntimeError("a tensor of a GPU was pickled")

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return _dispatched(func, args, kwargs or {})


class PretendedGpu(TorchDispatchMode):
    """While it is on, `device=GPU` makes tensors of the pretended GPU."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return _dispatched(func, args, kwargs or {})


def _dispatched(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    flat, _ = tree_flatten((args, kwargs))
    tensors = [item for item in flat if isinstance(item, Tensor)]
    there = any(isinstance(item, OnGpu) for item in tensors)
    asked = next((item for item in flat if isinstance(item, torch.device)), None)
    if asked is not None:
        there = asked.type == GPU.type
        here = torch.device("cpu") if there else asked
        args, kwargs = tree_map_only(torch.device, lambda device: here, (args, kwargs))
    if func in _COPIES and isinstance(args[0], OnGpu) and asked is None:
        there = True
    elif func is aten.copy_.default:
        there = isinstance(args[0], OnGpu)
    elif there and func not in _ANY_DEVICE and asked is None:
        _refuse_mixture(func, args, tensors)
    given = list(tensors)
    args, kwargs = tree_map_only(OnGpu, lambda tensor: tensor.held, (args, kwargs))
    if kwargs.get("pin_memory"):
        kwargs["pin_memory"] = False
    out = func(*args, **kwargs)
    if func in (aten._local_scalar_dense.default, aten.equal.default) or not there:
        return out
    return tree_map_only(Tensor, lambda tensor: _same(tensor, given), out)


def _same(tensor: Tensor, given: list[Tensor]) -> Tensor:
    """What an operator in place gives back is the tensor that it was given."""
    for one in given:
        if isinstance(one, OnGpu) and one.held is tensor:
            return one
    return tensor if isinstance(tensor, OnGpu) or tensor.is_meta else OnGpu(tensor)


def _refuse_mixture(func: Any, args: tuple[Any, ...], tensors: list[Tensor]) -> None:
    # indices may be on the CPU where the indexed tensor is not
    if func in _INDEXED and isinstance(args[0], OnGpu):
        return
    for tensor in tensors:
        if not isinstance(tensor, OnGpu) and tensor.dim() and not tensor.is_meta:
            raise RuntimeError(f"{func}: expected all tensors to be on the same device")


@contextmanager
def pretended_gpu() -> Iterator[torch.device]:
    """Yields the device."""
    _set_up()
    before = torch.inference_mode
    # a view of a tensor like ours cannot be made in it
    torch.inference_mode = lambda mode=True: torch.no_grad()  # type: ignore[assignment,misc]
    try:
        with PretendedGpu():
            yield GPU
    finally:
        torch.inference_mode = before  # type: ignore[misc]


@cache
def _set_up() -> None:
    _setup_privateuseone_for_python_backend(rename="pretended", backend_module=_Module())


class _Module(_DummyBackendModule):
    """`torch.pretended`: random states that are none, for what is drawn is drawn on the CPU."""

    def get_rng_state(self, device: Any = None) -> Tensor:
        return torch.zeros(0, dtype=torch.uint8)

    def set_rng_state(self, state: Tensor, device: Any = None) -> None: ...
