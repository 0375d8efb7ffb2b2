"""Give every initialiser of an exported graph the name of the parameter it came from.

The exporter keeps most names, but merges initialisers of equal value (all the fresh batch norms of
an untrained network become one), and calls a transposed linear weight `val_17`. Cutting channels
needs them apart and named, so: the module that a node came from is in the node's notes, and among
that module's own parameters the one with the same values gives the name.
"""

from __future__ import annotations

import ast
from collections import Counter

import numpy as np
import onnx
from onnx import numpy_helper
from torch import nn

TRANSPOSED, FOLDED_BIAS = "_transposed", "_bias"
_SCOPES = "pkg.torch.onnx.name_scopes"
_BIASED = ("Conv", "ConvTranspose", "Gemm")


def name_initializers(proto: onnx.ModelProto, model: nn.Module) -> None:
    """Rename and un-share initialisers in place.

    A linear weight that was transposed becomes `<name>_transposed`; a bias that several layers
    shared becomes one `<weight>_bias` each. What matches no parameter keeps its name.
    """
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    uses = Counter(name for node in proto.graph.node for name in node.input if name in tensors)
    modules = dict(model.named_modules(remove_duplicate=False))
    made: dict[str, np.ndarray] = {}
    for node in proto.graph.node:
        own = _own_parameters(node, modules)
        for slot, name in enumerate(node.input):
            if name in own or not _may_be_a_parameter(tensors.get(name)):
                continue
            better = _match(tensors[name], own)
            if better is None and slot == 2 and node.op_type in _BIASED and uses[name] > 1:
                better = node.input[1] + FOLDED_BIAS  # of a norm folded into this layer
            if better is None:
                continue
            if better not in tensors:
                made[better] = tensors[name]
            node.input[slot] = better
    _rebuild(proto, made)


def _may_be_a_parameter(values: np.ndarray | None) -> bool:
    """Single numbers are constants of the graph far more often than parameters of one channel."""
    return values is not None and values.size >= 2 and values.dtype.kind == "f"


def _own_parameters(node: onnx.NodeProto, modules: dict[str, nn.Module]) -> dict[str, np.ndarray]:
    """Parameters and buffers, by full name, of the module whose `forward` the node came from."""
    text = next((entry.value for entry in node.metadata_props if entry.key == _SCOPES), "[]")
    try:
        scopes = [str(scope) for scope in ast.literal_eval(text)]
    except (ValueError, SyntaxError):
        return {}
    scope = next((scope for scope in reversed(scopes) if scope in modules), None)  # the innermost
    if scope is None:
        return {}
    module, prefix = modules[scope], f"{scope}." if scope else ""
    tensors = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    return {
        prefix + name: tensor.detach().cpu().numpy()
        for name, tensor in tensors
        if tensor.is_floating_point()
    }


def _match(values: np.ndarray, own: dict[str, np.ndarray]) -> str | None:
    for name, candidate in own.items():
        if candidate.shape == values.shape and np.array_equal(candidate, values):
            return name
    for name, candidate in own.items():
        turned = candidate.T if candidate.ndim == 2 else None
        if turned is not None and turned.shape == values.shape and np.array_equal(turned, values):
            return name + TRANSPOSED
    return None


def _rebuild(proto: onnx.ModelProto, made: dict[str, np.ndarray]) -> None:
    """Add the initialisers `made`; drop those that nothing uses now, and what is said of them."""
    graph = proto.graph
    used = {name for node in graph.node for name in node.input}
    used |= {value.name for value in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    added = [
        numpy_helper.from_array(np.ascontiguousarray(values), name) for name, values in made.items()
    ]
    del graph.initializer[:]
    graph.initializer.extend([*kept, *added])
    computed = {name for node in graph.node for name in node.output}
    for value in [value for value in graph.value_info if value.name not in computed]:
        graph.value_info.remove(value)
