"""An ONNX file that really kills onnxruntime: the child dies of it, the parent says so and
lives.
"""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import fake_run
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline.errors import ArtifactError
from pipeline.runtime import Worker
from stages.export import check_file

needs_trap = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"),
    reason="integer division traps on x86 only: nothing to crash on here",
)


@pytest.fixture
def deadly(tmp_path: Path) -> Path:
    """A valid graph in which onnxruntime folds the constant -2³¹ / -1, which traps in the
    processor (SIGFPE).
    """
    numbers = {"least": -(2**31), "minus_one": -1}
    graph = helper.make_graph(
        [
            helper.make_node("Div", ["least", "minus_one"], ["q"]),
            helper.make_node("Cast", ["q"], ["f"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["input", "f"], ["logits"]),
        ],
        "deadly",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        [
            numpy_helper.from_array(np.array([value], np.int32), name)
            for name, value in numbers.items()
        ],
    )
    path = tmp_path / "deadly.onnx"
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(proto.SerializeToString())
    return path


def harmless(path: Path) -> Path:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["input"], ["logits"])],
        "harmless",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(proto.SerializeToString())
    return path


@needs_trap
def test_opening_it_kills_the_child_and_the_parent_names_file_and_signal(deadly: Path) -> None:
    with Worker() as worker:
        with pytest.raises(ArtifactError, match=r"died of signal SIGFPE.*deadly\.onnx") as caught:
            worker.open(deadly)
        assert not worker.alive
    assert caught.value.exit_code == 3
    with pytest.raises(ArtifactError, match="SIGFPE"):
        check_file(deadly)


@needs_trap
def test_bench_on_it_is_exit_3_with_one_error_and_one_hint(
    rlp: fake_run.Rlp, deadly: Path, tmp_path: Path
) -> None:
    result = rlp(
        "bench", harmless(tmp_path / "base.onnx"), deadly, "--min-seconds", "0.05", "--json"
    )
    assert result.code == 3
    assert "SIGFPE" in result.lines("error")[0]
    assert "deadly.onnx" in result.lines("error")[0]
    assert len(result.lines("hint")) == 1
    assert result.json()["settings"] is None


def test_inspect_of_it_does_not_run_it(rlp: fake_run.Rlp, deadly: Path) -> None:
    result = rlp("inspect", deadly, "--json")
    assert result.code == 0
    assert result.json()["content"]["nodes"] == {"Add": 1, "Cast": 1, "Div": 1}


def test_inspect_survives_a_parser_that_dies(
    rlp: fake_run.Rlp, deadly: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "import os, signal, sys; sys.stdin.readline(); os.kill(os.getpid(), signal.SIGSEGV)"
    real = Worker.__init__
    monkeypatch.setattr(
        Worker,
        "__init__",
        lambda self, **options: real(self, **options, command=[sys.executable, "-c", script]),
    )
    result = rlp("inspect", deadly, "--json")
    assert result.code == 3
    assert "SIGSEGV" in result.lines("error")[0]
    assert "deadly.onnx" in result.lines("error")[0]


def test_inspect_shows_what_the_file_says_of_itself(rlp: fake_run.Rlp, tmp_path: Path) -> None:
    path = harmless(tmp_path / "harmless.onnx")
    proto = onnx.load(path)
    proto.metadata_props.add(key="classes", value='["a", "b"]')
    path.write_bytes(proto.SerializeToString())
    content = rlp("inspect", path, "--json").json()["content"]
    assert content["metadata"] == {"classes": '["a", "b"]'}
    assert content["opsets"] == {"ai.onnx": 17}
    assert content["bytes"] == path.stat().st_size
