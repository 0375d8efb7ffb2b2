"""A float graph made INT8 with onnxruntime's own tools. Loaded by path in the child process.

The order of calls: `prepare` a file, or `load` a prepared graph; `watch` and `observe` batches of
images; `ranges` of what was seen; `quantize` with them, as often as there are schemes to try.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

# a view of another tensor, or arithmetic on sizes: costs next to nothing in either precision
_FREE = (
    *("Cast", "Constant", "Flatten", "Gather", "Identity", "Reshape", "Shape", "Slice"),
    *("Squeeze", "Transpose", "Unsqueeze"),
)
_Q, _DQ = "QuantizeLinear", "DequantizeLinear"
_QUANTISED = (_Q, _DQ, "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger")
_LOWEST_OPSET = 13  # the first whose QuantizeLinear takes a scale for each channel
_BINS = 2048  # of every tensor's histogram, as onnxruntime's percentile calibrater has
_ENTROPY_BINS = 256  # its search of a threshold is quadratic in them

Ranges = dict[str, list[float]]


class Quantization:
    """One prepared float graph, what was seen of its activations, and INT8 graphs made of it."""

    def __init__(self) -> None:
        self.model = onnx.ModelProto()
        self.session: Any = None
        self.seen: dict[str, Seen] = {}
        self._made, self._made_how = onnx.ModelProto(), {"nothing": "yet"}

    def prepare(self, path: str) -> bytes:
        """The file with shapes inferred and batch norms folded, in one piece, ready for `load`.

        Raises:
            ValueError: it is quantised already, is no float32 network, or its data lie elsewhere.
        """
        original = onnx.load(path)
        _require_float(original)
        if _opset(original) < _LOWEST_OPSET:
            original = onnx.version_converter.convert_version(original, _LOWEST_OPSET)
        model = _preprocessed(original)
        model.ir_version = original.ir_version
        _only_used_domains(model, _opset(original))
        for index, node in enumerate(model.graph.node):
            node.name = node.name or f"{node.op_type}_{index}"  # nodes are left out by their names
        _set_metadata(model, {entry.key: entry.value for entry in original.metadata_props})
        self.model = model
        return model.SerializeToString(deterministic=True)

    def load(self, model: bytes) -> None:
        """Take another float graph in the place of the prepared one."""
        self._made_how = {}
        self.model = onnx.ModelProto.FromString(model)

    def watch(self, tensors: list[str], threads: int) -> int:
        """Open a session that also gives these tensors. Returns their bytes for one image."""
        import onnxruntime as ort

        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        known = {value.name for value in model.graph.output}
        values = {value.name: value for value in model.graph.value_info}
        inputs = {value.name for value in model.graph.input}
        wanted = [name for name in tensors if name not in known | inputs]
        model.graph.output.extend(values[name] for name in wanted if name in values)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self.session = ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self.seen = {name: Seen() for name in tensors}
        return sum(array.nbytes for array in self._run(self._zeros()).values())

    def _zeros(self) -> np.ndarray:
        sizes = [s if isinstance(s, int) else 1 for s in self.session.get_inputs()[0].shape]
        return np.zeros([1, *sizes[1:]], np.float32)

    def _run(self, x: np.ndarray) -> dict[str, np.ndarray]:
        feed = self.session.get_inputs()[0].name
        names = [value.name for value in self.session.get_outputs()]
        found = dict(zip(names, self.session.run(None, {feed: x}), strict=True))
        return {name: value for name, value in {**found, feed: x}.items() if name in self.seen}

    def observe(self, x: np.ndarray) -> None:
        """Add one batch (N, C, H, W) to what is known of every watched tensor."""
        for name, values in self._run(x).items():
            self.seen[name].add(values)

    def ranges(self, method: str, percentile: float) -> tuple[Ranges, list[str]]:
        """Lowest and highest value of every tensor, by onnxruntime's calibration `method`
        ("minmax", "percentile" or "entropy"), and the tensors that were not finite.
        """
        finite = {name: seen for name, seen in self.seen.items() if seen.finite and seen.batches}
        if method == "minmax":
            found = {name: [seen.mean_lowest, seen.mean_highest] for name, seen in finite.items()}
        else:
            found = _by_histogram(finite, method, percentile)
        return found, sorted(set(self.seen) - set(finite))

    def quantize(self, request: dict) -> tuple[bytes, dict]:
        """The graph with Q/DQ nodes by `onnxruntime.quantization.QDQQuantizer`.

        Args:
            request: activation, weight ("int8" or "uint8"), per_channel, reduce_range, operators
                (types that are quantised), exclude (names of nodes that are not), ranges of the
                activations (None: all of them -1 … 1, for a graph that is only timed).
        Returns:
            the graph, the tensors that got a scale, and the nodes that stayed float.
        """
        ranges = request["ranges"]
        how = {key: value for key, value in request.items() if key != "ranges"}
        if ranges is None or how != self._made_how or not _rescale(self._made, self.model, ranges):
            self._made, self._made_how = self._quantized(request), how
            if ranges is not None:  # so that a graph's bytes do not tell what was made before it
                _rescale(self._made, self.model, ranges)
        return self._made.SerializeToString(deterministic=True), {
            "tensors": _scaled(self._made),
            "float_nodes": _float_nodes(self._made),
        }

    def _quantized(self, request: dict) -> onnx.ModelProto:
        from onnxruntime.quantization import QDQQuantizer, QuantType

        types = {"int8": QuantType.QInt8, "uint8": QuantType.QUInt8}
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        # the quantizer looks up what it then leaves out: the value before a ReLU that goes
        ranges = {name: [-1.0, 1.0] for name in _float_tensors(model)} | (request["ranges"] or {})
        _mark_inferred(model)  # else it would infer the shapes once more, on disk
        quantizer = QDQQuantizer(
            model,
            request["per_channel"],
            request["reduce_range"],
            types[request["weight"]],
            types[request["activation"]],
            _tensors_data(ranges),
            [],
            request["exclude"],
            request["operators"],
            # onnxruntime's per-channel kernels take one zero point for all channels
            {"WeightSymmetric": True},
        )
        logging.disable(logging.WARNING)
        quantizer.quantize_model()
        quantizer.model.topological_sort()  # the new nodes stand at the end
        made = quantizer.model.model
        tensors = _scaled(made)
        unknown = set(tensors) - set(request["ranges"] or tensors)
        if unknown:
            raise ValueError(f"no range was taken of {min(unknown)}")
        made.ir_version = self.model.ir_version
        _only_used_domains(made, _opset(self.model))
        _set_metadata(made, {entry.key: entry.value for entry in self.model.metadata_props})
        made.producer_name, made.producer_version = "onnxruntime.quantization", ""
        return made


class Seen:
    """What one activation did: mean of the batches' extremes, extremes, and a histogram.

    The histogram has a fixed number of bins from -edge to edge. When a value lies beyond, edge
    doubles until it does not, and bins are merged in pairs: memory never grows.
    """

    def __init__(self) -> None:
        self.batches = 0
        self.finite = True
        self.mean_lowest = self.mean_highest = 0.0
        self.lowest, self.highest = np.float32(np.inf), np.float32(-np.inf)
        self.edge = 0.0
        self.counts: np.ndarray = np.zeros(_BINS, np.int64)

    def add(self, values: np.ndarray) -> None:
        """One batch of any shape; of a tensor that was not finite once nothing is kept."""
        lowest, highest = values.min(), values.max()
        self.finite = self.finite and bool(np.isfinite(lowest) and np.isfinite(highest))
        if not self.finite:
            return
        self.batches += 1
        self.mean_lowest += (float(lowest) - self.mean_lowest) / self.batches
        self.mean_highest += (float(highest) - self.mean_highest) / self.batches
        self.lowest, self.highest = min(self.lowest, lowest), max(self.highest, highest)
        self._widen(max(-float(lowest), float(highest), 0.0))
        self._count(values)

    def _widen(self, reach: float) -> None:
        if self.edge == 0.0:  # all zeros so far: they stay in the middle
            self.edge = reach
        while reach > self.edge:
            outer = np.zeros(_BINS // 4, np.int64)
            pairs = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.concatenate([outer, pairs, outer])
            self.edge *= 2

    def _count(self, values: np.ndarray) -> None:
        if self.edge == 0.0:
            self.counts[_BINS // 2] += values.size
            return
        # numpy.histogram with equal bins, in a quarter of its time
        bins = (values.ravel() + np.float32(self.edge)) * np.float32(_BINS / (2 * self.edge))
        index = np.clip(bins, 0, _BINS - 1).astype(np.int32)
        self.counts += np.bincount(index, minlength=_BINS)

    def histogram(self, bins: int) -> tuple[np.ndarray, np.ndarray, np.float32, np.float32]:
        """Counts, edges, lowest and highest as onnxruntime's collector keeps them."""
        edges = np.linspace(-self.edge, self.edge, bins + 1, dtype=np.float32)
        counts = self.counts.reshape(bins, -1).sum(axis=1)
        return counts, edges, np.float32(self.lowest), np.float32(self.highest)


def _by_histogram(seen: dict[str, Seen], method: str, percentile: float) -> Ranges:
    """Ranges by onnxruntime's own rule for histograms."""
    from onnxruntime.quantization.calibrate import HistogramCollector

    bins = _ENTROPY_BINS if method == "entropy" else _BINS
    collector = HistogramCollector(method, False, bins, 128, percentile, "same")
    collector.histogram_dict = {name: one.histogram(bins) for name, one in seen.items()}
    with contextlib.redirect_stdout(io.StringIO()):  # it prints
        found = collector.compute_collection_result()
    return {name: [float(values[0]), float(values[1])] for name, values in found.items()}


def _require_float(model: onnx.ModelProto) -> None:
    """Raise unless this is a float32 network that nobody has quantised."""
    quantised = [
        node.op_type
        for node in model.graph.node
        if node.op_type in _QUANTISED or node.op_type.startswith("QLinear")
    ]
    if quantised:
        raise ValueError(f"it is quantised already: {len(quantised)} nodes such as {quantised[0]}")
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    kinds = [value.type.tensor_type.elem_type for value in inputs]
    if kinds != [onnx.TensorProto.FLOAT]:
        named = ", ".join(onnx.TensorProto.DataType.Name(kind) for kind in kinds)
        raise ValueError(f"one float32 input of images is needed, it has {named or 'none'}")


def _preprocessed(model: onnx.ModelProto) -> onnx.ModelProto:
    from onnxruntime.quantization.shape_inference import quant_pre_process

    logging.disable(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="rlp-quantize-") as folder:
        before, after = (os.path.join(folder, f"{name}.onnx") for name in ("before", "after"))
        onnx.save(model, before)
        # its symbolic shapes are for transformers, and take sympy
        quant_pre_process(before, after, skip_symbolic_shape=True)
        return onnx.load(after)


def _opset(model: onnx.ModelProto) -> int:
    own = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    return own[0] if own else 0


def _only_used_domains(model: onnx.ModelProto, opset: int) -> None:
    """Name no operator set that no node is of: another runtime may not know it."""
    used = {node.domain for node in model.graph.node} - {"", "ai.onnx"}
    kept = [entry for entry in model.opset_import if entry.domain in used]
    own = helper.make_opsetid("", opset)
    del model.opset_import[:]
    model.opset_import.extend([own, *kept])


def _set_metadata(model: onnx.ModelProto, metadata: dict[str, str]) -> None:
    del model.metadata_props[:]
    for key in sorted(metadata):
        entry = model.metadata_props.add()
        entry.key, entry.value = key, metadata[key]


def _mark_inferred(model: onnx.ModelProto) -> None:
    from onnxruntime.quantization.quant_utils import add_infer_metadata

    add_infer_metadata(model)


def _float_tensors(model: onnx.ModelProto) -> list[str]:
    """Names of all activations."""
    values = [*model.graph.input, *model.graph.value_info, *model.graph.output]
    return [v.name for v in values if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT]


def _tensors_data(ranges: Ranges) -> Any:
    from onnxruntime.quantization import CalibrationMethod, TensorsData

    pairs = {name: tuple(np.array(v, np.float32) for v in pair) for name, pair in ranges.items()}
    return TensorsData(CalibrationMethod.MinMax, pairs)


def _scaled(model: onnx.ModelProto) -> list[str]:
    """Activations that a QuantizeLinear reads, by their names in the float graph."""
    read = {node.input[0] for node in model.graph.node if node.op_type == _Q}
    return sorted(_original_name(name) for name in read)


def _original_name(name: str) -> str:
    """Of a value that was renamed, for the last node keeps the name of the graph's output."""
    from onnxruntime.quantization.quant_utils import add_quant_input_suffix

    return name.removesuffix(add_quant_input_suffix(""))


def _rescale(made: onnx.ModelProto, original: onnx.ModelProto, ranges: Ranges) -> bool:
    """Give a graph that was quantised the scales of other ranges, by the quantiser's formulas.

    The weights stay, which are what takes the quantiser its time. False where a bias would not fit
    its 32 bits: then the quantiser changes the weights as well.
    """
    from onnxruntime.quantization.quant_utils import compute_scale_zp, get_qmin_qmax_for_qType

    tensors = {tensor.name: tensor for tensor in made.graph.initializer}
    found: dict[str, np.ndarray] = {}
    for node in made.graph.node:
        # of several that share a scale, the first gives it: a pooling has that of its input
        if node.op_type == _Q and node.input[1] not in found:
            pair = (np.array(value, np.float32) for value in ranges[_original_name(node.input[0])])
            limits = get_qmin_qmax_for_qType(tensors[node.input[2]].data_type)
            zero, scale = compute_scale_zp(*pair, *limits)
            found |= {node.input[1]: scale, node.input[2]: zero}
    for name, bias in _biases(made, original, tensors, found):
        if np.abs(bias).max(initial=0) > np.iinfo(np.int32).max:
            return False
        found[name] = bias
    for name, values in found.items():
        kind = onnx.helper.tensor_dtype_to_np_dtype(tensors[name].data_type)
        shaped = np.asarray(values).astype(kind).reshape(tensors[name].dims)
        tensors[name].CopyFrom(numpy_helper.from_array(shaped, name))
    return True


def _biases(
    made: onnx.ModelProto,
    original: onnx.ModelProto,
    tensors: dict[str, onnx.TensorProto],
    scales: dict[str, np.ndarray],
) -> Iterator[tuple[str, np.ndarray]]:
    """Integers of every bias, float64 and rounded, and its scales, by the initialisers' names."""
    from onnxruntime.quantization.quant_utils import TENSOR_NAME_QUANT_SUFFIX

    floats = {tensor.name: tensor for tensor in original.graph.initializer}
    makers = {node.output[0]: node for node in made.graph.node if node.op_type == _DQ}
    for node in made.graph.node:
        sources = [makers.get(name) for name in node.input]
        if len(sources) < 3 or None in sources[:3] or sources[2].input[0] not in tensors:
            continue
        x, weight, bias = sources[:3]
        scale = scales[x.input[1]] * numpy_helper.to_array(tensors[weight.input[1]])
        name = bias.input[0].removesuffix(TENSOR_NAME_QUANT_SUFFIX)
        values = numpy_helper.to_array(floats[name]).astype(np.float64)
        yield bias.input[0], (values / scale.astype(np.float64)).round()
        yield bias.input[1], scale


def _float_nodes(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes that compute and get no dequantised value."""
    dequantised = {node.output[0] for node in model.graph.node if node.op_type == _DQ}
    return [
        node.name
        for node in model.graph.node
        if node.op_type not in (*_FREE, _Q, _DQ) and not dequantised.intersection(node.input)
    ]


def saturates(activation: str, weight: str) -> bool:
    """Whether products of 8-bit numbers overflow 16 bits in onnxruntime's kernel for these types.

    Without VNNI (x86) a pair of products is summed in 16 bits. Asked of a convolution of 64
    channels whose result is known.
    """
    import onnxruntime as ort

    model, expected = _extreme_convolution(activation, weight)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    found = session.run(None, {"x": np.full((1, 64, 4, 4), 1.0, np.float32)})[0]
    return bool(np.abs(found - expected).max() > 0.02 * abs(expected))


def _extreme_convolution(activation: str, weight: str) -> tuple[onnx.ModelProto, float]:
    """A quantised 1x1 convolution of ones whose activations and weights are the largest there are,
    and what it gives.
    """
    kinds = {"int8": (np.int8, 0, 127), "uint8": (np.uint8, 128, 255)}
    x_kind, x_zero, x_top = (np.uint8, 0, 255) if activation == "uint8" else kinds["int8"]
    w_kind, w_zero, w_top = kinds[weight]
    arrays = {
        "xs": np.float32(1 / (x_top - x_zero)),
        "xz": x_kind(x_zero),
        "w": np.full((64, 64, 1, 1), w_top, w_kind),
        "ws": np.float32(1 / (w_top - w_zero)),
        "wz": w_kind(w_zero),
        "ys": np.float32(64 / (x_top - x_zero)),
    }
    nodes = [
        helper.make_node(_Q, ["x", "xs", "xz"], ["xq"]),
        helper.make_node(_DQ, ["xq", "xs", "xz"], ["xd"]),
        helper.make_node(_DQ, ["w", "ws", "wz"], ["wd"]),
        helper.make_node("Conv", ["xd", "wd"], ["y"]),
        helper.make_node(_Q, ["y", "ys", "xz"], ["yq"]),
        helper.make_node(_DQ, ["yq", "ys", "xz"], ["out"]),
    ]
    graph = helper.make_graph(
        nodes,
        "extreme",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 64, 4, 4])],
        [helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, [1, 64, 4, 4])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()],
    )
    opsets = [helper.make_opsetid("", _LOWEST_OPSET)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8), 64.0
