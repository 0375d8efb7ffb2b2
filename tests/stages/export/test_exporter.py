"""What lands in the file: a dynamic batch, our notes, no path of this machine, no denormals."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from export_nets import Small, small
from onnx import numpy_helper
from torch import nn

import stages.export.exporter as exporter
import stages.export.torch_exporters as torch_exporters
from pipeline.errors import ArtifactError, EnvironmentProblem, Refused
from pipeline.runtime import Worker
from stages.export import check_file, class_metadata, count_denormals, export_onnx, flush_denormals
from stages.export.torch_exporters import Exported
from stages.prune import ChannelPlan, prune
from stages.trace import trace

X = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
METADATA = class_metadata(["cat", "chat"], [0.5, 0.5, 0.5], [0.2, 0.2, 0.2], [3, 8, 8])


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, exporter.ExportReport]:
    path = tmp_path_factory.mktemp("export") / "small.onnx"
    return path, export_onnx(small(), X, path, metadata=METADATA)


def test_one_file_with_a_dynamic_batch_and_notes(
    exported: tuple[Path, exporter.ExportReport],
) -> None:
    path, report = exported
    assert [file.name for file in path.parent.iterdir()] == ["small.onnx"]
    assert (report.exporter, report.fallback) == ("torch.export", "")
    assert report.dynamic_batch
    assert report.bytes == path.stat().st_size
    opened = check_file(path)
    assert opened["inputs"][0]["shape"] == ["batch", 3, 8, 8]
    assert [opened["inputs"][0]["name"], opened["outputs"][0]["name"]] == ["input", "logits"]
    assert opened["metadata"]["classes"] == '["cat", "chat"]'
    assert onnx.load(path).opset_import[0].version == report.opset


def test_others_may_read_the_file(exported: tuple[Path, exporter.ExportReport]) -> None:
    """With the mode that the umask gives to any new file, not the one of a temporary file."""
    (exported[0].parent / "new").touch()
    modes = [path.stat().st_mode for path in (exported[0], exported[0].parent / "new")]
    (exported[0].parent / "new").unlink()
    assert modes[0] == modes[1]


def test_any_batch_gives_what_pytorch_gives(exported: tuple[Path, exporter.ExportReport]) -> None:
    x = torch.randn(5, 3, 8, 8)
    with torch.no_grad(), Worker() as worker:
        worker.open(exported[0])
        np.testing.assert_allclose(
            worker.infer(x.numpy()), small()(x).numpy(), rtol=1e-4, atol=1e-6
        )


def test_no_path_of_this_machine_in_the_file(exported: tuple[Path, exporter.ExportReport]) -> None:
    data = exported[0].read_bytes()
    assert str(Path(exporter.__file__).parents[2]).encode() not in data
    assert b".py" not in data


def test_the_same_network_gives_the_same_bytes(
    exported: tuple[Path, exporter.ExportReport], tmp_path: Path
) -> None:
    again = export_onnx(small(), X, tmp_path / "again.onnx", metadata=METADATA, verify=False)
    assert again.sha256 == exported[1].sha256


def test_training_mode_is_restored(tmp_path: Path) -> None:
    model = Small().train()
    model.norm.eval()
    export_onnx(model, X, tmp_path / "small.onnx", exporter="torchscript", verify=False)
    assert model.training
    assert model.depth.training
    assert not model.norm.training


def test_falls_back_to_the_other_exporter_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object) -> onnx.ModelProto:
        raise RuntimeError("no such operator\nwith a long explanation")

    monkeypatch.setitem(torch_exporters._EXPORTERS, "torch.export", broken)
    report = export_onnx(small(), X, tmp_path / "small.onnx")
    assert report.exporter == "torchscript"
    assert report.fallback == "torch.export: RuntimeError: no such operator"
    assert report.dynamic_batch
    with pytest.raises(Refused, match="cannot be exported") as caught:
        export_onnx(small(), X, tmp_path / "other.onnx", exporter="torch.export")
    assert caught.value.exit_code == 1
    assert not (tmp_path / "other.onnx").exists()


def test_a_folder_that_is_not_there_is_exit_4(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = Exported(onnx.ModelProto(), "torch.export", "")
    monkeypatch.setattr(exporter, "first_that_works", lambda *args: nothing)
    with pytest.raises(EnvironmentProblem, match="nowhere") as caught:
        export_onnx(small(), X, tmp_path / "nowhere" / "small.onnx")
    assert caught.value.exit_code == 4


def test_a_file_the_checker_refuses_never_takes_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "small.onnx"
    path.write_bytes(b"the old one")
    empty = onnx.ModelProto()
    empty.graph.input.add(name="input").type.tensor_type.shape.dim.add(dim_param="batch")
    refused = Exported(empty, "torch.export", "")
    monkeypatch.setattr(exporter, "first_that_works", lambda *args: refused)
    with pytest.raises(ArtifactError, match=r"refused .*/small\.onnx"):
        export_onnx(small(), X, path)
    assert path.read_bytes() == b"the old one"
    assert len(list(tmp_path.iterdir())) == 1


def test_denormal_weights_are_counted_and_set_to_zero() -> None:
    values = np.array([0.0, 1e-40, -1e-44, 1.2e-38, 1.0], np.float32)
    half = np.array([1e-6, 1.0], np.float16)
    proto = onnx.ModelProto()
    proto.graph.initializer.extend(
        [numpy_helper.from_array(values, "w"), numpy_helper.from_array(half, "h")]
    )
    assert count_denormals(proto) == 3
    assert flush_denormals(proto) == 3
    flushed, halves = (numpy_helper.to_array(tensor) for tensor in proto.graph.initializer)
    np.testing.assert_array_equal(flushed, np.array([0, 0, 0, 1.2e-38, 1], np.float32))
    np.testing.assert_array_equal(halves, np.array([0, 1], np.float16))
    assert count_denormals(proto) == 0


def test_export_flushes_what_training_left(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with torch.no_grad():
        model[0].weight[0] = 1e-40
    report = export_onnx(model, X, tmp_path / "tiny.onnx", exporter="torchscript", verify=False)
    assert report.denormals_flushed == 3
    assert count_denormals(onnx.load(tmp_path / "tiny.onnx")) == 0


def test_weights_that_hooks_compute_are_exported(tmp_path: Path) -> None:
    net = copy.deepcopy(small())
    with pytest.warns(FutureWarning, match="weight_norm"):
        nn.utils.weight_norm(net.stem)
    net(X)  # the hook leaves a weight there that deepcopy refuses
    export_onnx(net, X, tmp_path / "net.onnx")
    found = onnx.load(tmp_path / "net.onnx").graph.output[0].type.tensor_type.shape.dim
    assert found[1].dim_value == net(X).shape[1]


@pytest.mark.parametrize("exporter", ["torch.export", "torchscript"])
def test_layers_that_are_never_reached_do_not_travel(exporter: str, tmp_path: Path) -> None:
    net = copy.deepcopy(small())
    net.spare = nn.Sequential(nn.Conv2d(7, 11, 3), nn.BatchNorm2d(11))
    net.register_parameter("alone", nn.Parameter(torch.randn(13, 3)))
    graph = trace(net, X)
    assert {name.partition(".")[0] for name in graph.unused} >= {"spare", "alone"}
    cut = prune(net, graph, ChannelPlan.uniform(graph))
    export_onnx(cut, X, tmp_path / "cut.onnx", exporter=exporter)
    stored = onnx.load(tmp_path / "cut.onnx").graph.initializer
    assert stored
    assert not {11, 13} & {size for tensor in stored for size in tensor.dims}


class ReadAgain(nn.Module):
    """Adds what an activation may have written over."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.activation = nn.ReLU(inplace)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x - 1
        self.activation(y)
        return (y * 2).mean((2, 3))


@pytest.mark.parametrize("inplace", [True, False])
def test_activations_write_new_tensors_where_nobody_reads_the_old_one(
    inplace: bool, tmp_path: Path
) -> None:
    net = ReadAgain(inplace)
    expected = net(X.clone())
    export_onnx(net, X, tmp_path / "net.onnx")
    with Worker() as worker:
        worker.open(tmp_path / "net.onnx")
        np.testing.assert_allclose(worker.infer(X.numpy()), expected.numpy(), atol=1e-6)
    assert net.activation.inplace is inplace


def test_an_export_traces_no_write_in_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    written: list[bool] = []
    real = torch_exporters._EXPORTERS["torch.export"]

    def watched(model: nn.Module, *rest: object) -> onnx.ModelProto:
        written.extend(module.inplace for module in model.modules() if hasattr(module, "inplace"))
        return real(model, *rest)  # type: ignore[arg-type]

    monkeypatch.setitem(torch_exporters._EXPORTERS, "torch.export", watched)
    export_onnx(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU6(inplace=True)), X, tmp_path / "a.onnx")
    assert written == [False]


def test_opset_is_obeyed_or_refused(tmp_path: Path) -> None:
    """torch.export writes 18 where onnx's converter cannot follow; TorchScript writes what it is
    told.
    """
    report = export_onnx(small(), X, tmp_path / "m.onnx", metadata=METADATA, opset=13)
    assert (report.opset, report.exporter) == (13, "torchscript")
    assert "wrote opset" in report.fallback
    assert onnx.load(tmp_path / "m.onnx").opset_import[0].version == 13
    with pytest.raises(Refused, match="cannot be exported") as caught:
        export_onnx(
            small(), X, tmp_path / "n.onnx", metadata=METADATA, opset=13, exporter="torch.export"
        )
    assert "13 was asked for" in caught.value.details[0]
