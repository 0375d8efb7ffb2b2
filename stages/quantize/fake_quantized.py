"""A Q/DQ graph as a PyTorch network whose weights, biases and scales can be trained.

It computes what onnxruntime does of the graph, but in float: values are rounded to the steps of
their scale and clipped where 8 bits end, by torch's own operators. Gradients pass through the
rounding, and reach the scales too (LSQ: Esser et al. 2020, arXiv 1902.08153). Zero points stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from stages.quantize.operators import Unsupported, operator
from stages.quantize.schemes import MULTIPLIES

_Q, _DQ = "QuantizeLinear", "DequantizeLinear"
_SUFFIX = "_quantized"  # what onnxruntime's quantiser adds to a weight's name
_SMALLEST = 1e-8  # of a scale: values are divided by it
_BIAS = np.iinfo(np.int32)

Arrays = Mapping[str, np.ndarray]


class _Step(NamedTuple):
    """A node: what it reads, what it gives, and what nobody reads after it."""

    inputs: tuple[str, ...]
    output: str
    function: Callable[[Sequence[Any]], Tensor]
    last: tuple[str, ...]


class FakeQuantized(nn.Module):
    """Takes images (N, C, H, W) and gives the graph's first output.

    Args:
        float_model: the graph that `graph` was made of, with the weights before they were rounded.
        graph: with Q/DQ nodes.
    Raises:
        Unsupported: it has an operator that cannot be trained here.
    """

    def __init__(self, float_model: bytes, graph: bytes) -> None:
        super().__init__()
        self._model = onnx.ModelProto.FromString(graph)
        self._stored = _arrays(self._model)
        learned = self._learned(_arrays(onnx.ModelProto.FromString(float_model)))
        self._attributes = {name: f"tensor_{at}" for at, name in enumerate(self._stored)}
        for name, attribute in self._attributes.items():
            if name in learned:
                values, unit = (torch.tensor(np.asarray(one, np.float32)) for one in learned[name])
                self.register_parameter(attribute, nn.Parameter(values / unit))
                self.register_buffer(f"{attribute}_unit", unit, persistent=False)
            else:
                self.register_buffer(attribute, _constant(self._stored[name]), persistent=False)
        inputs = [v.name for v in self._model.graph.input if v.name not in self._stored]
        self._input, self._output = inputs[0], self._model.graph.output[0].name
        self._steps = self._walk()

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes)."""
        known: dict[str, Tensor] = {self._input: x}
        for step in self._steps:
            read = [known[name] if name in known else self._tensor(name) for name in step.inputs]
            known[step.output] = step.function(read)
            for name in step.last:
                del known[name]
        return known[self._output]

    def written(self) -> bytes:
        """The graph with the weights, biases and scales that were learned."""
        found = {name: _numbers(self._tensor(name)) for name in self._stored}
        for node in self._of_type(_Q, _DQ):
            found[node.input[1]] = np.maximum(found[node.input[1]], np.float32(_SMALLEST))
        for node in self._of_type(_DQ):
            if self._is_weight(node):
                found[node.input[0]] = self._steps_of(node, found)
        made = {node.output[0]: node for node in self._of_type(_DQ)}
        for node in self._of_type(*MULTIPLIES):
            sources = [made[name] for name in node.input if name in made]
            if len(sources) == 3:
                found |= _integer_bias(found, *(source.input for source in sources))
        return _with_constants(self._model, found)

    def _tensor(self, name: str) -> Tensor | None:
        """What is learned or constant under this name; None for an input that is left out."""
        if not name:
            return None
        found = getattr(self, self._attributes[name])
        return found * self._unit(name) if isinstance(found, nn.Parameter) else found

    def _unit(self, name: str) -> Tensor:
        return getattr(self, f"{self._attributes[name]}_unit")

    def _of_type(self, *kinds: str) -> Iterator[onnx.NodeProto]:
        return (node for node in self._model.graph.node if node.op_type in kinds)

    def _is_bias(self, node: onnx.NodeProto) -> bool:
        return self._stored.get(node.input[0], np.empty(0)).dtype == np.int32

    def _is_weight(self, node: onnx.NodeProto) -> bool:
        return node.input[0] in self._stored and not self._is_bias(node)

    def _learned(self, floats: Arrays) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """What training changes, weights and biases in float, and scales; and their units.

        In units of their own range all of them learn alike, however large a channel happens to be.
        """
        found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for node in self._of_type(*MULTIPLIES):
            names = [name for name in node.input[1:] if name in self._stored]
            found |= {n: (self._stored[n], _largest(self._stored[n])) for n in names}
        for node in self._of_type(_Q, _DQ):
            name, scale = node.input[0], self._stored[node.input[1]]
            if self._is_bias(node):  # its scale follows from those of weight and input
                bias = self._stored[name] * scale.astype(np.float64)
                found[name] = (bias, _largest(bias) if bias.any() else np.ones(1))
                continue
            found[node.input[1]] = (scale, scale)
            if self._is_weight(node):
                original = floats.get(name.removesuffix(_SUFFIX))
                if original is None:
                    raise Unsupported(f"the float values of {name} are not known")
                unit = _along(scale, node, original.ndim) * self._reach(node)[1]
                found[name] = (original, unit)
        return found

    def _walk(self) -> list[_Step]:
        steps: list[_Step] = []
        read = {self._output, "", *self._stored}
        for node in reversed(self._model.graph.node):
            last = tuple(dict.fromkeys(name for name in node.input if name not in read))
            read.update(node.input)
            steps.append(_Step(tuple(node.input), node.output[0], self._function(node), last))
        return steps[::-1]

    def _function(self, node: onnx.NodeProto) -> Callable[[Sequence[Any]], Tensor]:
        if node.op_type == _Q:
            limits = np.iinfo(self._stored[node.input[2]].dtype)
            return partial(_rounded, low=limits.min, high=limits.max)
        if node.op_type != _DQ:
            return operator(node)
        if self._is_weight(node):
            zero, reach = self._reach(node)
            limits = np.iinfo(self._stored[node.input[0]].dtype)  # of uint8, 128 + 128 lies beyond
            low, high = max(limits.min, zero - reach), min(limits.max, zero + reach)
            return partial(_rounded, low=low, high=high, axis=_axis(node))
        if not self._is_bias(node):
            self._require_its_scale(node)
        return _first

    def _reach(self, node: onnx.NodeProto) -> tuple[int, int]:
        """Zero point of a weight, and how many steps onnxruntime took at most to either side."""
        zero = int(self._stored[node.input[2]].flat[0])
        steps = self._stored[node.input[0]].astype(np.int64) - zero
        return zero, int(np.abs(steps).max(initial=1))

    def _require_its_scale(self, node: onnx.NodeProto) -> None:
        makers = [one for one in self._of_type(_Q) if one.output[0] == node.input[0]]
        if not makers or makers[0].input[1:] != node.input[1:]:
            raise Unsupported(f"{node.name} reads at another scale than was written")

    def _steps_of(self, node: onnx.NodeProto, found: Arrays) -> np.ndarray:
        """A weight in steps of its scale."""
        with torch.no_grad():
            rounded = _numbers(self._function(node)([self._tensor(name) for name in node.input]))
        scale = _along(found[node.input[1]], node, rounded.ndim)
        return np.rint(rounded / scale) + self._reach(node)[0]


def _arrays(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def _constant(values: np.ndarray) -> Tensor:
    """Zero points as floats, which torch's operators take; all else as it is."""
    return torch.from_numpy(np.array(values, np.float32 if values.itemsize == 1 else None))


def _largest(values: np.ndarray) -> np.ndarray:
    return np.abs(values).max(initial=_SMALLEST, keepdims=True)


def _numbers(tensor: Tensor | None) -> np.ndarray:
    assert tensor is not None
    return tensor.detach().cpu().numpy()


def _axis(node: onnx.NodeProto) -> int:
    return next((a.i for a in node.attribute if a.name == "axis"), 1)


def _along(scale: np.ndarray, node: onnx.NodeProto, axes: int) -> np.ndarray:
    """A scale so shaped that it goes with a weight of so many axes."""
    own = _axis(node) if scale.size > 1 else -1
    return scale.reshape([-1 if axis == own else 1 for axis in range(axes)])


def _first(inputs: Sequence[Tensor]) -> Tensor:
    return inputs[0]


def _rounded(inputs: Sequence[Tensor], *, low: int, high: int, axis: int = 0) -> Tensor:
    """Values at the nearest steps of a scale, one for all or one for every place along `axis`."""
    x, scale, zero = inputs
    scale = scale.clamp(min=_SMALLEST)
    each = x[0] if axis == 0 and scale.numel() == 1 else x
    # LSQ's: a scale learns about as fast as what it scales
    factor = (each.numel() / scale.numel()) ** -0.5
    if scale.numel() > 1:
        return torch._fake_quantize_learnable_per_channel_affine(
            x, scale, zero, axis, low, high, factor
        )
    one = (scale.reshape(1), zero.reshape(1))
    return torch._fake_quantize_learnable_per_tensor_affine(x, *one, low, high, factor)


def _integer_bias(
    found: Arrays, x: Sequence[str], weight: Sequence[str], bias: Sequence[str]
) -> dict[str, np.ndarray]:
    """A bias in steps of its scale, that of the products. Given: what DequantizeLinears read."""
    scale = found[x[1]].reshape(-1).astype(np.float64) * found[weight[1]].reshape(-1)
    steps = np.rint(found[bias[0]].reshape(-1) / scale)
    return {bias[0]: np.clip(steps, _BIAS.min, _BIAS.max), bias[1]: scale}


def _with_constants(model: onnx.ModelProto, found: Arrays) -> bytes:
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for tensor in made.graph.initializer:
        kind = helper.tensor_dtype_to_np_dtype(tensor.data_type)
        values = found[tensor.name].astype(kind).reshape(tensor.dims)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return made.SerializeToString(deterministic=True)
