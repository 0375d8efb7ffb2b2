"""fp16 files: what is computed in it, what stays float32, and when they are delivered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper
from quantize_nets import images, labelled, quadrants

from pipeline.config.schema import Config
from pipeline.errors import ArtifactError, EnvironmentProblem
from pipeline.run.fp16 import makes_fp16
from pipeline.run.store import sha256_file
from stages.benchmark.protocol import Setting
from stages.quantize import half, half_onnx, quantize_onnx
from stages.quantize.graph import activations
from stages.quantize.half import HalfReport
from stages.quantize.report import Score, Timing
from stages.quantize.stage import delivered


@pytest.fixture
def faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """On this CPU it is not."""
    timing = Timing(2.0, (1.9, 2.1), "faster", (2.0, 1.0))
    monkeypatch.setattr(half, "time_pair", lambda *_: timing)


def made(path: Path, **settings: Any) -> tuple[HalfReport, onnx.ModelProto]:
    before, out = sha256_file(path), path.with_name("half.onnx")
    report = half_onnx(path, out, labelled(64, 1), labelled(), **settings)
    assert sha256_file(path) == before
    assert report.file == {
        "name": "half.onnx", "sha256": sha256_file(out), "bytes": out.stat().st_size
    }  # fmt: skip
    return report, onnx.load(out)


def types(proto: onnx.ModelProto) -> set[int]:
    return {tensor.data_type for tensor in proto.graph.initializer}


def test_weights_are_fp16_and_input_and_output_float32(tmp_path: Path, faster: None) -> None:
    path = quadrants(tmp_path / "net.onnx")
    report, proto = made(path)
    assert report.chosen == "fp16"
    assert report.reason.startswith("fp16 is 2.00× (1.90 to 2.10) as fast as fp32")
    assert types(proto) == {onnx.TensorProto.FLOAT16}
    ends = [*proto.graph.input, *proto.graph.output]
    assert {v.type.tensor_type.elem_type for v in ends} == {onnx.TensorProto.FLOAT}
    assert {entry.key for entry in proto.metadata_props} == {"classes"}
    x = images(8)
    answers = [
        ort.InferenceSession(file).run(None, {"input": x})[0]
        for file in (path, path.with_name("half.onnx"))
    ]
    assert 0 < np.abs(answers[0] - answers[1]).max() < 5e-3
    parity = report.to_dict()["parity"]
    assert parity["top1_agreement"] == 1
    assert 0 < parity["output_error"] < 1e-3


def test_nodes_that_see_large_values_stay_float32(tmp_path: Path, faster: None) -> None:
    factor = np.full((1, 8, 1, 1), 1e5, np.float32)
    middle = [
        helper.make_node("Mul", ["features", "up"], ["large"], "up"),
        helper.make_node("Mul", ["large", "down"], ["altered"], "down"),
    ]
    constants = {"up": factor, "down": 1 / factor}
    path = quadrants(tmp_path / "net.onnx", middle, constants=constants)
    report, proto = made(path)
    assert report.out_of_range == ("up", "down")
    assert report.float_nodes == report.out_of_range
    assert report.chosen == "fp16"
    found = {tensor.name: tensor.data_type for tensor in proto.graph.initializer}
    assert found["up"] == onnx.TensorProto.FLOAT
    assert found["mix.weight"] == onnx.TensorProto.FLOAT16


@pytest.mark.parametrize("kind", ["INT64", "BOOL", "DOUBLE", "FLOAT16"])
def test_casts_of_the_network_itself_are_kept(kind: str, tmp_path: Path, faster: None) -> None:
    number = getattr(onnx.TensorProto, kind)
    middle = [
        helper.make_node("Cast", ["features"], ["other"], to=number),
        helper.make_node("Cast", ["other"], ["back"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Max", ["back", "features"], ["altered"]),
    ]
    report, proto = made(quadrants(tmp_path / "net.onnx", middle))
    assert report.chosen == "fp16", report.reason
    onnx.checker.check_model(proto, full_check=True)


@pytest.mark.parametrize("value", [{"value_float": 0.5}, {"value_floats": [0.5]}])
def test_constants_of_plain_floats_become_fp16(
    value: dict[str, Any], tmp_path: Path, faster: None
) -> None:
    middle = [
        helper.make_node("Constant", [], ["half"], **value),
        helper.make_node("Mul", ["features", "half"], ["altered"]),
    ]
    report, _ = made(quadrants(tmp_path / "net.onnx", middle))
    assert report.chosen == "fp16", report.reason


def test_nodes_with_large_weights_stay_float32_and_those_with_large_bounds_do_not(
    tmp_path: Path, faster: None
) -> None:
    middle = [
        helper.make_node("Clip", ["features", "", "bound"], ["clipped"], "clip"),
        helper.make_node("Div", ["clipped", "large"], ["small"], "down"),
        helper.make_node("Div", ["small", "tiny"], ["altered"], "up"),
    ]
    constants = {"bound": np.float32(3e38), "large": np.float32(1e6), "tiny": np.float32(1e-6)}
    arrays = {name: np.asarray(value) for name, value in constants.items()}
    report, _ = made(quadrants(tmp_path / "net.onnx", middle, constants=arrays), keep=["Div"])
    assert report.out_of_range == ("down",)
    assert report.chosen == "fp16"
    assert report.score is not None
    assert report.score.output_error < 1e-3


def test_a_name_that_a_node_would_be_given_may_be_taken(tmp_path: Path, faster: None) -> None:
    middle = [helper.make_node("Neg", ["features"], ["negative"], "Relu_1")]
    middle.append(helper.make_node("Neg", ["negative"], ["altered"]))
    assert made(quadrants(tmp_path / "net.onnx", middle))[0].chosen == "fp16"


def test_a_batch_that_is_fixed_in_the_graph_is_kept(tmp_path: Path, faster: None) -> None:
    _, proto = made(quadrants(tmp_path / "net.onnx", batch=8))
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 8


def test_weights_that_are_inputs_too_are_no_activations(tmp_path: Path) -> None:
    proto = onnx.load(quadrants(tmp_path / "net.onnx"))
    for tensor in proto.graph.initializer:
        proto.graph.input.append(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )
    assert activations(proto) == ["input", "logits"]


def test_operators_that_are_named_stay_float32(tmp_path: Path, faster: None) -> None:
    report, proto = made(quadrants(tmp_path / "net.onnx"), keep=["Gemm"])
    (name,) = report.float_nodes
    assert name.startswith("Gemm")
    found = {tensor.name: tensor.data_type for tensor in proto.graph.initializer}
    assert found["head.weight"] == onnx.TensorProto.FLOAT


@pytest.mark.parametrize(
    ("timing", "chosen"),
    [
        (Timing(0.9, (0.8, 0.95), "slower", (0.9, 1.0)), "fp32"),
        (Timing(1.2, (1.01, 1.5), "no difference shown", (1.2, 1.0)), "fp32"),
        (Timing(1.2, (1.1, 1.3), "faster", (1.2, 1.0)), "fp16"),
    ],
)
def test_it_is_made_in_any_case_and_delivered_where_shown_faster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, timing: Timing, chosen: str
) -> None:
    monkeypatch.setattr(half, "time_pair", lambda *_: timing)
    report, _ = made(quadrants(tmp_path / "net.onnx"))
    assert report.chosen == chosen


def test_beyond_its_bounds_it_is_not_delivered_however_fast(
    tmp_path: Path, faster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    off = Score(96, 1.0, 1.0, 0.0, (0.0, 0.0), 0.98, 0.001)
    monkeypatch.setattr(half.Scorer, "score", lambda self, model: off)
    report, _ = made(quadrants(tmp_path / "net.onnx"))
    assert report.chosen == "fp32"
    assert report.reason == "fp16 and fp32 name the same class for 98.0 % on 96 images, 99 % needed"


def test_a_provider_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    path = quadrants(tmp_path / "net.onnx")
    with pytest.raises(EnvironmentProblem, match="CUDAExecutionProvider"):
        half_onnx(path, tmp_path / "out.onnx", labelled(), labelled(), setting=Setting("cuda"))
    assert not (tmp_path / "out.onnx").exists()


def test_what_is_quantised_or_fp16_already_is_refused(tmp_path: Path, faster: None) -> None:
    path = quadrants(tmp_path / "net.onnx")
    made(path)
    quantised = tmp_path / "int8.onnx"
    quantize_onnx(path, quantised, labelled(64, 1), labelled())
    nothing = tmp_path / "nothing.onnx"
    nothing.write_bytes(b"nothing")
    for file, why in (
        (quantised, "quantised already"),
        (tmp_path / "half.onnx", "float16 weights already"),
        (nothing, "nothing.onnx"),
    ):
        with pytest.raises(ArtifactError, match=why):
            half_onnx(file, tmp_path / "out.onnx", labelled(), labelled())


def config(provider: str, **quantize: Any) -> Config:
    return Config.model_validate({"benchmark": {"provider": provider}, "quantize": quantize})


def test_files_are_made_for_gpus_and_where_asked_for() -> None:
    assert not makes_fp16(config("CPUExecutionProvider"))
    assert makes_fp16(config("cuda"))
    assert makes_fp16(config("TensorrtExecutionProvider"))
    assert makes_fp16(config("cpu", fp16="on", mode="off"))
    assert not makes_fp16(config("cuda", fp16="off"))


def outcome(chosen: str, ratio: float, name: str) -> dict[str, Any]:
    return {"chosen": chosen, "reason": f"of {name}", "timing": Timing(ratio, (ratio, ratio))}


@pytest.mark.parametrize(
    ("mode", "int8", "fp16", "wanted"),
    [
        ("auto", ("int8", 1.5), ("fp16", 2.0), ("fp16", "of fp16")),
        ("auto", ("int8", 2.5), ("fp16", 2.0), ("int8", "of int8")),
        ("auto", ("fp32", 2.5), ("fp16", 2.0), ("fp16", "of fp16")),
        ("auto", ("int8", 1.5), ("fp32", 2.0), ("int8", "of int8")),
        ("auto", ("fp32", 0.5), ("fp32", 0.9), ("fp32", "of int8; of fp16")),
        ("int8", ("int8", 0.5), ("fp16", 2.0), ("int8", "of int8")),
        ("off", ("fp32", 0.0), ("fp16", 2.0), ("fp16", "of fp16")),
        ("off", ("fp32", 0.0), ("fp32", 0.9), ("fp32", "of fp16")),
        ("auto", ("int8", 1.5), None, ("int8", "of int8")),
    ],
)
def test_the_fastest_of_those_that_may_be_delivered_is(
    mode: str, int8: tuple[str, float], fp16: tuple[str, float] | None, wanted: tuple[str, str]
) -> None:
    from stages.quantize.report import QuantizeReport, Tried
    from stages.quantize.schemes import Scheme

    facts = outcome(*int8, "int8")
    best = Tried(Scheme("uint8", "int8"), facts.pop("timing"))
    report = QuantizeReport(**facts, best=best)
    halved = HalfReport(**outcome(*fp16, "fp16")) if fp16 else None
    assert delivered(mode, report, halved) == wanted
