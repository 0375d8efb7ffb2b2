"""A candidate's ONNX graph in milliseconds: slices of the original's, in place of an export.

    base.onnx   conv.weight (8, 3, 3, 3)   conv.weight_bias (8)   fc.weight (10, 8)
    plan        {"conv": (0, 2, 3, 7)}
    candidate   conv.weight (4, 3, 3, 3)   conv.weight_bias (4)   fc.weight (10, 4)

Three things follow the widths besides weights: the bias a batch norm was folded into (named after
the weight), the `group` of a depthwise convolution, and constant shapes of reshapes. Nodes of
branches that the plan drops are left out, with the sums that they went into. A graph that was
quantised is cut in the same way, its scales and zero points with its weights.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from pipeline.channels.branch import Branch
from pipeline.channels.graph import ChannelGraph, Keep, Place
from pipeline.channels.plan import ChannelPlan
from pipeline.errors import Refused
from stages.export.naming import FOLDED_BIAS, TRANSPOSED
from stages.export.quantized import follow, join_pairs, scaled, scales_of, themselves
from stages.export.zeros import remove_unread, remove_zeros, shapes_of

_HEAVY = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_INSTEAD = "export the pruned network instead"

Sources = dict[int, Place]
"""{dim of an initialiser: the parameter and dimension whose slices it loses}."""


def slice_onnx(
    original: onnx.ModelProto, graph: ChannelGraph, plan: ChannelPlan
) -> onnx.ModelProto:
    """The graph that exporting the pruned network would give, cut out of the original's export.

    Args:
        original: the export of the network that was traced (`export_proto`: it keeps the names of
            parameters).
        graph: its channel groups.
        plan: kept units by group id, a group that is not named keeps all; branches that go.
    Raises:
        Refused: the graph has something that cannot be cut this way; export the pruned network
            instead.
    """
    return OnnxSlicer(original, graph).slice(plan.kept_of(graph), plan.drop)


class OnnxSlicer:
    """`slice_onnx` for many plans: what depends on the original alone is done once.

    Args:
        original, graph: see `slice_onnx`.
        quantized: the original in QDQ form, its nodes under their names: candidates are slices of
            it instead. Raises Refused where that cannot be followed (`follow`).
    """

    def __init__(
        self,
        original: onnx.ModelProto,
        graph: ChannelGraph,
        quantized: onnx.ModelProto | None = None,
    ) -> None:
        self.graph = graph
        if quantized is None:
            whole, self._followed = original, themselves(original)
        else:  # it says nothing of the values behind its own nodes
            whole = onnx.shape_inference.infer_shapes(quantized)
            self._followed = follow(whole, original)
        self._scales = {} if quantized is None else scales_of(whole)
        self._tensors = list(whole.graph.initializer)
        self._shapes = {tensor.name: tuple(tensor.dims) for tensor in self._tensors}
        self._skeleton = onnx.ModelProto()
        self._values = shapes_of(whole)
        self._skeleton.CopyFrom(whole)  # without weights it is copied fast, once a candidate
        del self._skeleton.graph.initializer[:]
        del self._skeleton.graph.value_info[:]  # sizes of the uncut graph
        self._sources = {
            tensor.name: self._sources_of(tensor.name, original) for tensor in self._tensors
        }
        self._arrays = {
            t.name: numpy_helper.to_array(t) for t in self._tensors if self._sources[t.name]
        }
        self._made_by = {branch.id: self._outputs(branch) for branch in graph.branches}
        _check_slices(whole)
        self._free_reshapes(whole)
        self._check_names(graph)

    def slice(self, keep: Keep, drop: Collection[str] = ()) -> onnx.ModelProto:
        """The candidate's graph for kept units by group id. Raises Refused.

        Args:
            drop: branches that go besides those of which `keep` leaves nothing.
        """
        going = [b for b in self.graph.branches if b.id in drop or b in self.graph.dropped(keep)]
        self._check_keep(keep, {group for branch in going for group in branch.groups})
        removed = self.graph.removed_slices(keep)
        result = onnx.ModelProto()
        result.CopyFrom(self._skeleton)
        factors = self._leave_out(result, going) if going else {}
        read = {name for node in result.graph.node for name in node.input}
        shapes: dict[str, tuple[int, ...]] = {}
        for tensor in self._tensors:
            if tensor.name not in read:
                continue
            cut = self._cut(tensor.name, removed)
            if tensor.name in factors:
                cut = scaled(
                    self._arrays[tensor.name] if cut is None else cut, factors[tensor.name]
                )
            if cut is None:
                result.graph.initializer.add().CopyFrom(tensor)
            else:
                shapes[tensor.name] = cut.shape
                new = result.graph.initializer.add()
                new.name, new.data_type, new.raw_data = tensor.name, tensor.data_type, cut.tobytes()
                new.dims.extend(cut.shape)
        self._fix_groups(result, shapes)
        return result

    def slice_bytes(self, keep: Keep, drop: Collection[str] = ()) -> bytes:
        """`slice`, serialised for a session."""
        return self.slice(keep, drop).SerializeToString()

    def _outputs(self, branch: Branch) -> set[str]:
        """What nodes make that hold a weight of a branch."""
        return {
            name
            for node in self._skeleton.graph.node
            if any(branch.holds(self._parameter(weight)) for weight in node.input)
            for name in node.output
        }

    def _parameter(self, value: str) -> str:
        """The parameter that a value is, or a name that is none."""
        origin = self._followed.origins.get(self._followed.roots.get(value, value))
        return origin.initializer if origin else ""

    def _sources_of(self, name: str, original: onnx.ModelProto) -> Sources:
        origin = self._followed.origins.get(name)
        if origin is None:
            return {}
        of_origin = _sources(origin.initializer, self.graph, original)
        return {own: of_origin[dim] for own, dim in origin.dims.items() if dim in of_origin}

    def _leave_out(self, result: onnx.ModelProto, going: Sequence[Branch]) -> dict[str, float]:
        """Remove branches; what some of the initialisers are to be multiplied by then."""
        # all that a branch makes may count as zeros: what is added is, and nothing else is read
        remove_zeros(result, {n for b in going for n in self._made_by[b.id]}, self._values)
        factors = join_pairs(result.graph, self._scales)
        remove_unread(result.graph)
        for branch in going:
            for node in result.graph.node:
                if any(branch.holds(self._parameter(name)) for name in node.input):
                    raise Refused(f"{node.name}: the branch {branch.id} cannot be left out of it")
        return factors

    def _check_keep(self, keep: Keep, gone: Collection[str]) -> None:
        for name, kept in keep.items():
            if name not in self.graph:
                raise Refused(f"the plan names {name!r}, which is no group of this graph")
            if not len(kept) and name not in gone:
                raise Refused(f"the plan leaves nothing of {name!r}")

    def _cut(self, name: str, removed: Mapping[Place, np.ndarray]) -> np.ndarray | None:
        """The sliced array, or None when nothing of it goes."""
        values: np.ndarray | None = None
        for dim, place in self._sources[name].items():
            if place not in removed:
                continue
            values = self._arrays[name] if values is None else values
            alive = np.ones(values.shape[dim], dtype=bool)
            alive[removed[place]] = False
            values = np.compress(alive, values, axis=dim)
        return None if values is None else np.ascontiguousarray(values)

    def _fix_groups(self, result: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """A depthwise convolution has as many groups as inputs; other grouped ones keep theirs."""
        for node in result.graph.node:
            if node.op_type not in ("Conv", "ConvTranspose"):
                continue
            weight = self._followed.roots.get(node.input[1], "")
            if weight not in shapes:
                continue
            group = next((a for a in node.attribute if a.name == "group"), None)
            old, new = self._shapes[weight], shapes[weight]
            if group is None or group.i == 1:
                continue
            one_input_each = old[1] == 1 if node.op_type == "Conv" else old[0] == group.i
            if one_input_each:
                group.i = group.i * new[0] // old[0]

    def _free_reshapes(self, original: onnx.ModelProto) -> None:
        """Write constant shapes so that they hold for any width (`free_shape`)."""
        constants = _constants(original)
        known = _static_shapes(original)
        fresh: dict[str, np.ndarray] = {}
        for node in self._skeleton.graph.node:
            if node.op_type != "Reshape" or node.input[1] not in constants:
                continue
            target = [int(size) for size in constants[node.input[1]]]
            free = free_shape(known.get(node.input[0]), target)
            if free is None:
                continue
            name = f"{node.output[0]}_shape"  # one of its own: the exporter shares equal ones
            fresh[name] = np.asarray(free, dtype=np.int64)
            node.input[1] = name
            _copy_zeros(node)
        self._tensors += [numpy_helper.from_array(values, name) for name, values in fresh.items()]
        self._sources.update({name: {} for name in fresh})
        used = {name for node in self._skeleton.graph.node for name in node.input}
        self._tensors = [tensor for tensor in self._tensors if tensor.name in used]

    def _check_names(self, graph: ChannelGraph) -> None:
        """Refuse weights that carry no parameter's name: they could not be cut."""
        names = {*graph.parameters, *graph.aliases}
        for node in self._skeleton.graph.node:
            weight = self._parameter(node.input[1]) if node.op_type in _HEAVY else ""
            if not weight:
                continue
            if not {weight, weight.removesuffix(TRANSPOSED)} & names:
                raise Refused(
                    f"{node.name}: its weight {weight!r} has no parameter's name, "
                    "so it cannot be cut",
                    hint=_INSTEAD,
                )


def _check_slices(original: onnx.ModelProto) -> None:
    """Refuse slices of channels at fixed positions, which mean others after a cut."""
    constants = _constants(original)
    for node in original.graph.node:
        if node.op_type == "Slice" and _cuts_channels(node, constants):
            raise Refused(f"{node.name} slices channels at fixed positions", hint=_INSTEAD)


def _copy_zeros(node: onnx.NodeProto) -> None:
    """Let 0 in a reshape's target mean "as it comes", which `allowzero` would forbid."""
    for attribute in [a for a in node.attribute if a.name == "allowzero"]:
        node.attribute.remove(attribute)


def _sources(name: str, graph: ChannelGraph, original: onnx.ModelProto) -> Sources:
    """Whose slices an initialiser loses, by its name."""
    if own := _cut_dims(name, graph):
        return own
    plain = name.removesuffix(TRANSPOSED)
    if plain != name and (own := _cut_dims(plain, graph)):
        return {1 - dim: place for dim, place in own.items()}
    weight = name.removesuffix(FOLDED_BIAS)
    if weight != name and (own := _cut_dims(weight, graph)):
        nodes = (node for node in original.graph.node if weight in node.input)
        transposed = any(node.op_type == "ConvTranspose" for node in nodes)
        outputs = own.get(1 if transposed else 0)
        return {0: outputs} if outputs else {}
    return {}


def _cut_dims(name: str, graph: ChannelGraph) -> Sources:
    parameter = graph.aliases.get(name, name)
    shape = graph.parameters.get(parameter, ())
    places = {dim: (parameter, dim) for dim in range(len(shape))}
    return {dim: place for dim, place in places.items() if place in graph.slices_along}


def free_shape(given: Sequence[int | None] | None, target: list[int]) -> list[int] | None:
    """A reshape target that holds for any channel count, or None to leave it alone.

    `given` is the input's shape with None for the batch. The first entry is copied (0); one entry
    is inferred (-1): where sizes are merged (C, H, W -> C·H·W) the merged one; where the channels
    are split (C -> g, C/g) the last, as in `x.view(b, groups, c // groups, h, w)`.

        free_shape([None, 64, 7, 7], [-1, 3136])           -> [0, -1]
        free_shape([None, 116, 8, 8], [-1, 2, 58, 8, 8])    -> [0, 2, -1, 8, 8]
        free_shape([None, 58, 2, 8, 8], [-1, 116, 8, 8])    -> [0, -1, 8, 8]
    """
    if given is None or given[0] is not None:
        return None
    if len(target) < 2 or target[0] not in (-1, 0) or -1 in target[1:]:
        return None
    rest = list(given[1:])
    same = 0  # entries that agree from the end: height and width
    while same < min(len(rest), len(target) - 1) - 1 and rest[-1 - same] == target[-1 - same]:
        same += 1
    free = len(target) - 1 - same
    return [0] + [-1 if at == free else size for at, size in enumerate(target) if at > 0]


def _constants(original: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Initialisers of one dimension: shapes, starts, ends and axes are among them."""
    flat = (tensor for tensor in original.graph.initializer if len(tensor.dims) == 1)
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in flat}


def _static_shapes(original: onnx.ModelProto) -> dict[str, list[int | None]]:
    """Sizes of inputs and values by name; None for a size that is not fixed."""
    shapes: dict[str, list[int | None]] = {}
    for value in [*original.graph.value_info, *original.graph.input]:
        dims = value.type.tensor_type.shape.dim
        shapes[value.name] = [dim.dim_value if dim.HasField("dim_value") else None for dim in dims]
    return shapes


def _cuts_channels(node: onnx.NodeProto, constants: Mapping[str, np.ndarray]) -> bool:
    """Whether it slices dimension 1, or may."""
    if len(node.input) < 4 or any(name not in constants for name in node.input[1:4]):
        return True
    starts, ends, axes = (constants[name] for name in node.input[1:4])
    # "To the end" is written as the largest int64, by some exporters as the largest int32.
    whole = (starts == 0) & (ends >= np.iinfo(np.int32).max)
    return bool(((axes == 1) & ~whole).any())
