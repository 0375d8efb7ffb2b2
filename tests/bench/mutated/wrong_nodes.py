"""Wrong nodes of an ONNX graph: cycles, names, attributes, unknown operators, subgraphs."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from mutated.wrong_tensors import a_tensor
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper

NAMES = ("", "x", "input", "logits", "w", "\x1b[2J", "a/b:0", "[/a]", "../x", "\0", "é" * 3000)


def a_node(proto: ModelProto, chance: random.Random) -> NodeProto:
    """One of the nodes; made where there is none."""
    if not proto.graph.node:
        proto.graph.node.append(helper.make_node("Relu", ["input"], ["logits"]))
    return chance.choice(proto.graph.node)


def cycle(proto: ModelProto, chance: random.Random) -> None:
    """A node that reads what a later one makes, or itself; or nodes in the wrong order."""
    nodes = proto.graph.node
    if not nodes:
        return
    if chance.random() < 0.3:
        mixed = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
        chance.shuffle(mixed)
        del nodes[:]
        nodes.extend(mixed)
        return
    early, late = sorted(chance.choices(range(len(nodes)), k=2))
    if nodes[early].input and nodes[late].output:
        nodes[early].input[0] = nodes[late].output[0]


def missing(proto: ModelProto, chance: random.Random) -> None:
    """No weight of a name that is read; or no node, input or output."""
    graph = proto.graph
    part = chance.choice([graph.initializer, graph.initializer, graph.node, graph.input,
                          graph.output])  # fmt: skip
    if chance.random() < 0.2:
        del part[:]
    elif part:
        del part[chance.randrange(len(part))]


def unknown_operator(proto: ModelProto, chance: random.Random) -> None:
    """An operator, a domain or a version that nobody knows."""
    node, kind = a_node(proto, chance), chance.randrange(4)
    if kind == 0:
        node.op_type = chance.choice(["", "Nope", "conv", "\x1b[2J", "If", "Scan", "é" * 3000])
    elif kind == 1:
        node.domain = chance.choice(["com.example", "com.microsoft", "ai.onnx.ml", "x" * 3000])
        if chance.random() < 0.5:
            proto.opset_import.add(domain=node.domain, version=1)
    elif kind == 2:
        proto.opset_import[0].version = chance.choice([0, -1, 1, 6, 99, 2**40, 2**63 - 1])
    elif chance.random() < 0.5:
        del proto.opset_import[:]
    else:
        proto.opset_import.add(domain="", version=chance.choice([1, 13, 17]))


def doubled_names(proto: ModelProto, chance: random.Random) -> None:
    """Two weights, two inputs or two values of one name; a name that is empty or odd."""
    graph, kind = proto.graph, chance.randrange(4)
    if kind == 0:
        graph.initializer.append(a_tensor(proto, chance))
    elif kind == 1 and graph.input:
        graph.input.append(chance.choice(graph.input))
    elif kind == 2:
        graph.node.append(a_node(proto, chance))
    else:
        things = [*graph.initializer, *graph.input, *graph.output, *graph.node]
        chance.choice(things).name = chance.choice(NAMES)


def odd_links(proto: ModelProto, chance: random.Random) -> None:
    """Inputs and outputs of a node left out, doubled or renamed."""
    node = a_node(proto, chance)
    names, kind = chance.choice([node.input, node.output]), chance.randrange(3)
    if kind == 0:
        del names[:]
    elif kind == 1:
        names.extend([chance.choice(NAMES)] * chance.choice([1, 40]))
    elif names:
        names[chance.randrange(len(names))] = chance.choice(NAMES)


_ATTRIBUTES: dict[str, Sequence[Any]] = {
    "group": (0, -1, 3, 2**62),
    "pads": ([-1] * 4, [1], [2**40] * 4, [], [2**62] * 4),
    "strides": ([0, 0], [-1, 1], [2**62, 1]),
    "dilations": ([0, 0], [2**40, 2**40]),
    "kernel_shape": ([0, 0], [9, 9], [3], [2**62] * 2),
    "auto_pad": ("SAME_UPPER", "nonsense", 3),
    "perm": ([9, 9], [0, 0, 0, 0], [-1], []),
    "axis": (9, -9, 2**62, "x"),
    "axes": ([9], [], [-(2**62)]),
    "to": (0, 99, -1, "float"),
    "keepdims": (2, -1),
    "transB": (7, 1.5),
}


def odd_attribute(proto: ModelProto, chance: random.Random) -> None:
    """An attribute that makes no sense, of another type, twice, or not there."""
    node = a_node(proto, chance)
    if node.attribute and chance.random() < 0.3:
        del node.attribute[chance.randrange(len(node.attribute))]
        return
    name = chance.choice(list(_ATTRIBUTES))
    if chance.random() < 0.8:
        kept = [a for a in node.attribute if a.name != name]
        del node.attribute[:]
        node.attribute.extend(kept)
    value = chance.choice(_ATTRIBUTES[name])
    if value == [] or chance.random() < 0.1:
        node.attribute.append(AttributeProto(name=name, type=chance.randrange(15)))
    else:
        node.attribute.append(helper.make_attribute(name, value))


def subgraph(proto: ModelProto, chance: random.Random) -> None:
    """`If` around a node, many deep or sound; a branch may be empty or lack the output."""
    node = a_node(proto, chance)
    depth = chance.choice([1, 1, 2, 20, 30])  # protobuf writes no message a hundred deep
    sound = chance.random() < 0.4
    inner = NodeProto.FromString(node.SerializeToString())
    for level in range(depth):
        made = [helper.make_empty_tensor_value_info(name) for name in node.output]
        if not sound and chance.random() < 0.3:
            made = made[:-1]
        then, orelse = GraphProto(name=f"then{level}", node=[inner], output=made), GraphProto()
        if depth == 1 and sound:
            orelse.CopyFrom(then)
        branches = {"then_branch": then, "else_branch": orelse}
        inner = helper.make_node("If", ["yes"], list(node.output), **branches)
    if chance.random() < 0.8:
        yes = helper.make_tensor("yes", TensorProto.BOOL, [], [True])
        proto.graph.initializer.append(yes)
    node.CopyFrom(inner)


def loop(proto: ModelProto, chance: random.Random) -> None:
    """`Loop` or `Scan` of few turns whose body is odd: empty, without its condition, itself."""
    node = a_node(proto, chance)
    body = GraphProto(name="body")
    if chance.random() < 0.7:
        inner = NodeProto.FromString(node.SerializeToString())
        body.node.append(inner)
        body.output.extend(helper.make_empty_tensor_value_info(name) for name in inner.output)
    for name in ("i", "on")[: chance.randrange(3)]:
        body.input.append(helper.make_empty_tensor_value_info(name))
    proto.graph.initializer.append(
        helper.make_tensor("turns", TensorProto.INT64, [], [chance.choice([0, 1, 2, -1])])
    )
    kind = chance.choice(["Loop", "Scan"])
    inputs = ["turns", ""] if kind == "Loop" else list(node.input)
    node.CopyFrom(helper.make_node(kind, inputs, list(node.output), body=body))
    if kind == "Scan" and chance.random() < 0.7:
        count = chance.choice([0, 1, -1, 2**62])
        node.attribute.append(helper.make_attribute("num_scan_inputs", count))


def function(proto: ModelProto, chance: random.Random) -> None:
    """An operator of the file's own, which may call itself."""
    node = a_node(proto, chance)
    inner = NodeProto.FromString(node.SerializeToString())
    node.domain, node.op_type = "own", "Own"
    proto.opset_import.add(domain="own", version=1)
    if chance.random() < 0.3:
        inner.domain, inner.op_type = "own", "Own"
    own = helper.make_function(
        "own", "Own", list(inner.input), list(inner.output), [inner], list(proto.opset_import)
    )
    proto.functions.append(own)
