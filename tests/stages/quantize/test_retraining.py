"""INT8 networks that learn: the same numbers in torch and onnxruntime, and what training brings."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import helper
from quantize_nets import images, labelled, made_up_clock, quadrants
from tiny_training import Kill, context, net, recipe, splits
from torch import nn

import pipeline.run.checkpoints as checkpoints
from pipeline.models import save_model
from pipeline.run.stage import StageContext
from pipeline.training import Callbacks, fit
from stages.export import export_onnx
from stages.quantize import Allowance, QuantizeReport, Scheme, Workbench, engine, quantize_onnx
from stages.quantize.calibration import Calibration
from stages.quantize.fake_quantized import FakeQuantized
from stages.quantize.operators import Unsupported, operator
from stages.quantize.training import _START, Training

SCHEME = Scheme("uint8", "int8", reduce_range=True)  # which no processor saturates in


def quantised(path: Path, scheme: Scheme = SCHEME) -> tuple[bytes, bytes]:
    with Workbench(path) as bench:
        sketch = bench.sketch(scheme)
        assert sketch is not None
        bench.calibrate(sketch.tensors, labelled(64, 1), 64)
        graph = bench.quantize(scheme)
        assert graph is not None
        return bench.float_graph, graph.model


def by_onnxruntime(model: bytes, x: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def by_torch(network: nn.Module, x: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return network.eval()(torch.from_numpy(x)).numpy()


def step_of_output(model: bytes) -> float:
    graph = onnx.ModelProto.FromString(model).graph
    last = next(node for node in reversed(graph.node) if node.op_type == "DequantizeLinear")
    scale = next(t for t in graph.initializer if t.name == last.input[1])
    return float(onnx.numpy_helper.to_array(scale))


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("activation", ["uint8", "int8"])
def test_torch_and_onnxruntime_differ_by_a_step_of_the_output_at_most(
    tmp_path: Path, activation: str, per_channel: bool
) -> None:
    scheme = Scheme(activation, "int8", reduce_range=True, per_channel=per_channel)
    plain, graph = quantised(quadrants(tmp_path / "net.onnx"), scheme)
    network, x = FakeQuantized(plain, graph), images(64, seed=3)
    expected = by_onnxruntime(graph, x)
    step = step_of_output(graph)
    assert np.abs(by_torch(network, x) - expected).max() < 1.01 * step
    rounding = np.abs(expected - by_onnxruntime(plain, x)).mean()
    assert np.abs(by_torch(network, x) - expected).mean() < 0.2 * rounding
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.03)
    moved = by_onnxruntime(network.written(), x)
    assert np.abs(moved - expected).max() > 3 * step
    assert np.abs(by_torch(network, x) - moved).max() < 1.1 * 1.03 * step


def test_weights_that_outgrow_their_steps_keep_their_sign(tmp_path: Path) -> None:
    scheme = Scheme("uint8", "uint8", reduce_range=False)
    network = FakeQuantized(*quantised(quadrants(tmp_path / "net.onnx"), scheme))
    before = steps_of(network.written(), "mix.weight")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(2.0 if parameter.ndim == 4 else 1.0)
    after = steps_of(network.written(), "mix.weight")
    assert np.abs(after).sum() > np.abs(before).sum()
    assert (before * after >= 0).all()


def steps_of(model: bytes, weight: str) -> np.ndarray:
    initializers = onnx.ModelProto.FromString(model).graph.initializer
    (found,) = (t for t in initializers if t.name == f"{weight}_quantized")
    return onnx.numpy_helper.to_array(found).astype(int) - 128


def test_everything_learns(tmp_path: Path) -> None:
    network = FakeQuantized(*quantised(quadrants(tmp_path / "net.onnx")))
    network(torch.from_numpy(images(8))).square().sum().backward()
    assert len(list(network.parameters())) > 12
    silent = [name for name, p in network.named_parameters() if p.grad is None]
    assert silent == []
    assert torch.equal(
        network(torch.from_numpy(images(8))), copy.deepcopy(network)(torch.from_numpy(images(8)))
    )


def test_an_operator_that_is_not_known_is_named(tmp_path: Path) -> None:
    middle = [helper.make_node("Erf", ["features"], ["altered"])]
    with pytest.raises(Unsupported, match="Erf"):
        FakeQuantized(*quantised(quadrants(tmp_path / "net.onnx", middle)))


COARSE = 200  # times the range that activations have: one step or two are left


@pytest.fixture(scope="module")
def teacher() -> nn.Module:
    network = net(dropout=0.0)
    fit(network, splits().train, splits().search, recipe(epochs=4), seed=0)
    return network


@pytest.fixture
def ctx(tmp_path: Path, teacher: nn.Module, monkeypatch: pytest.MonkeyPatch) -> StageContext:
    """A context for the final network alone, badly calibrated, which no float node saves."""
    made_up_clock(monkeypatch)
    calibrated = Calibration.ranges

    def coarse(self: Calibration, calibrator: str) -> dict[str, list[float]]:
        found = calibrated(self, calibrator).items()
        return {name: [COARSE * end for end in ends] for name, ends in found}

    monkeypatch.setattr(Calibration, "ranges", coarse)
    monkeypatch.setattr(engine, "SCHEMES", engine.SCHEMES[:1])
    monkeypatch.setattr(engine, "accurate_in_part", lambda bench, missed, *_: missed)
    save_model(
        teacher, tmp_path / "base_model", source="tiny_training:net", kwargs={"dropout": 0.0}
    )
    (tmp_path / "export").mkdir()
    file = tmp_path / "export" / "model.onnx"
    export_onnx(teacher, torch.zeros(2, 1, 8, 8), file, exporter="torchscript", verify=False)
    return stopped_at(tmp_path, 0)


def stopped_at(folder: Path, step: int) -> StageContext:
    inputs = {"base_model": folder / "base_model", "onnx": folder / "export"}
    distill = {"batch_size": 16, "augment": {"crop": 1}}
    return context(
        folder, inputs, step, distill=distill, quantize={"qat_epochs": 6, "qat_lr": 0.05}
    )


def trained(ctx: StageContext) -> QuantizeReport:
    training = Training(ctx, "final", "onnx", splits())
    return quantize_onnx(
        ctx.input("onnx"), ctx.out / "model_int8.onnx", splits().train, splits().search,
        allowance=Allowance(5, output_error=10), train=training, start=training.start(),
    )  # fmt: skip


def test_training_brings_back_what_int8_lost(ctx: StageContext) -> None:
    report = trained(ctx)
    assert report.best is not None
    assert report.best.score is not None
    assert report.best.steps[-1:] == ("distillation",)
    before = [row.score.drop for row in report.tried if row.score and not row.timing]
    assert min(before) > 20
    assert report.best.score.drop < 5
    assert report.chosen == "int8"


def test_killed_and_typed_again_ends_in_the_same_bytes_without_another_search(
    ctx: StageContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    unbroken = trained(ctx)
    expected = (ctx.out / "model_int8.onnx").read_bytes()
    for file in sorted(ctx.work.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    monkeypatch.setattr(
        checkpoints, "Callbacks", lambda **given: Callbacks(**given, progress_seconds=0.0)
    )
    with pytest.raises(Kill):
        trained(stopped_at(ctx.out.parent, 14))
    monkeypatch.setattr(engine, "speeds_of_schemes", None)
    again = stopped_at(ctx.out.parent, 0)
    report = trained(again)
    assert any("resumed after step 12" in text for text in again.reporter.said)
    assert (ctx.out / "model_int8.onnx").read_bytes() == expected
    assert report.calibration["images"] == 96
    assert report.to_dict()["tried"] == unbroken.to_dict()["tried"]


def test_what_was_best_before_training_is_still_known_after_a_kill(
    ctx: StageContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeQuantized, "written", lambda self: self._model.SerializeToString())
    monkeypatch.setattr("stages.quantize.training.fit_resumable", lambda *given: None)
    first = trained(ctx)
    again = trained(ctx)
    assert first.best is not None
    assert again.best is not None
    assert first.best.steps == again.best.steps
    assert "distillation" not in first.best.steps


def test_a_start_that_cannot_be_read_is_searched_for_anew(
    ctx: StageContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.quantize.training.fit_resumable", lambda *given: None)
    trained(ctx)
    record = _START.read(ctx.work / "final" / "start.json")
    del record["best"]
    _START.write(ctx.work / "final" / "start.json", record)
    assert Training(ctx, "final", "onnx", splits()).start() is None


@pytest.mark.parametrize(
    ("kind", "attributes"),
    [
        ("Pad", {"mode": "reflect"}),
        ("AveragePool", {"kernel_shape": [2, 2], "pads": [0, 0, 1, 1]}),
        ("MaxPool", {"kernel_shape": [2, 2], "ceil_mode": 1}),
    ],
)
def test_padding_that_is_not_known_is_refused_before_training(
    kind: str, attributes: dict[str, Any]
) -> None:
    with pytest.raises(Unsupported, match="the padding of shift"):
        operator(helper.make_node(kind, ["x"], ["y"], "shift", **attributes))


def test_without_epochs_nothing_is_trained(ctx: StageContext) -> None:
    report = quantize_onnx(
        ctx.input("onnx"), ctx.out / "model_int8.onnx", splits().train, splits().search
    )
    assert report.chosen == "fp32"
    assert "loses" in report.reason
