"""What is read off a file's graph, through the child."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper
from onnx_files import double

from pipeline.errors import ArtifactError
from pipeline.runtime import Worker


@pytest.mark.parametrize("location", ["/etc/hostname", "../secret.bin", "link.bin"])
def test_weights_outside_the_files_own_folder_are_refused(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(b"\0" * 4)
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    path = double(folder / "double.onnx")
    proto = onnx.load(path)
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    path.write_bytes(proto.SerializeToString())
    with Worker() as worker, pytest.raises(ArtifactError, match="outside the file's own folder"):
        worker.scan(path)


def test_scan_counts_weights_denormals_and_multiplications(tmp_path: Path) -> None:
    weight = np.ones((4, 2, 3, 3), np.float32)
    weight[0, 0, 0, :2] = 1e-40
    graph = helper.make_graph(
        [helper.make_node("Conv", ["input", "conv.weight"], ["logits"], pads=[1, 1, 1, 1])],
        "one",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 2, "h", "w"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4, "h", "w"])],
        [numpy_helper.from_array(weight, "conv.weight")],
    )
    path = tmp_path / "conv.onnx"
    path.write_bytes(
        helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
        ).SerializeToString()
    )
    with Worker() as worker:
        facts = worker.scan(path, [2, 5, 7])
    assert (facts["weights"], facts["denormals"], facts["macs"]) == (72, 2, 72 * 5 * 7)
    assert facts["layers"][0]["layer"] == "conv"


CASES = [  # node, sizes of its weight, channels out and in, MACs at 4×4
    (helper.make_node("Conv", ["x", "w"], ["y"], group=2), (6, 2, 1, 1), (6, 4), 6 * 2 * 16),
    (helper.make_node("ConvTranspose", ["x", "w"], ["y"], group=2), (4, 3, 1, 1), (6, 4), 192),
    (helper.make_node("MatMul", ["x", "w"], ["y"]), (4, 5), (5, 4), 4 * 4 * 4 * 5),
]


@pytest.mark.parametrize(("node", "weight", "channels", "macs"), CASES)
def test_channels_and_multiplications_of_every_kind_of_layer(
    tmp_path: Path,
    node: NodeProto,
    weight: tuple[int, ...],
    channels: tuple[int, int],
    macs: int,
) -> None:
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ones(weight, np.float32), "w")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "one.onnx").write_bytes(proto.SerializeToString())
    with Worker() as worker:
        (layer,) = worker.scan(tmp_path / "one.onnx")["layers"]
    assert ((layer["out"], layer["in"]), layer["macs"]) == (channels, macs)
