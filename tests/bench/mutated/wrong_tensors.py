"""Wrong weights and wrong values of an ONNX graph: sizes, types, and where their numbers lie."""

from __future__ import annotations

import os
import random
from pathlib import Path

from onnx import ModelProto, TensorProto, helper

# so large that no machine has the memory, and the allocation fails before a page is touched
HUGE = (2**40, 2**50, 2**62, 2**63 - 1, -(2**63))
_SMALL = (0, 1, -1, 2, 3, 7)
_PLACES = ("../w.bin", "/etc/passwd", "/dev/zero", "w.bin", "link", "fifo", ".", "", "\0", "none")
_PARTS = ("0", "432", "-1", "x", "", "9" * 30, str(2**63), "1e3")


def a_tensor(proto: ModelProto, chance: random.Random) -> TensorProto:
    """One of the weights; made where there is none."""
    if not proto.graph.initializer:
        proto.graph.initializer.append(helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0]))
    return chance.choice(proto.graph.initializer)


def truncated_tensor(proto: ModelProto, chance: random.Random) -> None:
    """Fewer or more bytes than its sizes say, or those of two kinds at once."""
    tensor = a_tensor(proto, chance)
    raw = tensor.raw_data
    kind = chance.randrange(4)
    if kind == 0:
        tensor.raw_data = raw[: chance.randrange(len(raw) + 1)]
    elif kind == 1:
        tensor.raw_data = raw + b"\0" * chance.choice([1, 4, 100])
    elif kind == 2:
        tensor.ClearField("raw_data")
    else:
        tensor.float_data.extend([1.0] * chance.choice([1, 108]))


def wrong_dims(proto: ModelProto, chance: random.Random) -> None:
    """A weight of other sizes: none, too many, in another order, zero or negative."""
    dims = a_tensor(proto, chance).dims
    kind = chance.randrange(4)
    if kind == 0:
        del dims[:]
    elif kind == 1:
        dims.extend([1] * chance.choice([1, 5, 300]))
    elif kind == 2:
        dims[:] = chance.sample(list(dims), len(dims))
    elif dims:
        dims[chance.randrange(len(dims))] = chance.choice(_SMALL)


def huge_dims(proto: ModelProto, chance: random.Random) -> None:
    """Sizes beyond all memory, of a weight, an input, an output or a value between."""
    size = chance.choice(HUGE)
    if chance.random() < 0.4:
        tensor = a_tensor(proto, chance)
        if tensor.dims:
            tensor.dims[chance.randrange(len(tensor.dims))] = size
        return
    graph = proto.graph
    graph.value_info.append(helper.make_tensor_value_info("r", TensorProto.FLOAT, [1, 2, 3]))
    value = chance.choice([*graph.input, *graph.output, *graph.value_info])
    dims = value.type.tensor_type.shape.dim
    if dims:
        chance.choice(dims).dim_value = size


def wrong_type(proto: ModelProto, chance: random.Random) -> None:
    """An element type that is another, or none at all; an input that is no tensor."""
    number = chance.choice([*range(24), 99, -1, 2**31 - 1])
    kind = chance.randrange(3)
    if kind == 0:
        a_tensor(proto, chance).data_type = number
        return
    values = [*proto.graph.input, *proto.graph.output]
    if not values:
        return
    value = chance.choice(values)
    if kind == 1:
        value.type.tensor_type.elem_type = number
    elif chance.random() < 0.5:
        value.ClearField("type")
    else:
        value.type.CopyFrom(
            helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, [1]))
        )


def outside_data(proto: ModelProto, chance: random.Random) -> None:
    """A weight whose numbers lie elsewhere: outside the folder, in no file, beyond its end."""
    tensor = a_tensor(proto, chance)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    facts = {"location": chance.choice(_PLACES)}
    for key in ("offset", "length"):
        if chance.random() < 0.5:
            facts[key] = chance.choice(_PARTS)
    if chance.random() < 0.1:
        del facts["location"]
    for key, value in facts.items():
        tensor.external_data.add(key=key, value=value)


def beside(folder: Path) -> None:
    """What `outside_data` may name."""
    (folder / "w.bin").write_bytes(bytes(432))
    (folder / "link").symlink_to("/etc/passwd")
    os.mkfifo(folder / "fifo")


def sparse(proto: ModelProto, chance: random.Random) -> None:
    """A weight kept as its values and their places, which may be no places."""
    tensor = a_tensor(proto, chance)
    values = helper.make_tensor(tensor.name, TensorProto.FLOAT, [2], [1.0, 2.0])
    places = chance.choice([[0, 1], [5, 2**40], [-1, 0], [0, 0], [7]])
    indices = helper.make_tensor("at", TensorProto.INT64, [len(places)], places)
    made = helper.make_sparse_tensor(values, indices, list(tensor.dims))
    proto.graph.sparse_initializer.append(made)
    if chance.random() < 0.7:
        proto.graph.initializer.remove(tensor)
