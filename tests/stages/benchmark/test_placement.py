"""On which provider a file ran: a fall-back to the CPU is an error unless it is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench_graphs import conv_file

from pipeline.errors import EnvironmentProblem
from pipeline.runtime import CPU
from stages.benchmark import placement
from stages.benchmark.placement import check_placement, misplaced


class FallenBack:
    """A child whose provider took one convolution of two."""

    providers = ("CUDAExecutionProvider", CPU)

    def __enter__(self) -> FallenBack:
        return self

    def __exit__(self, *exc: object) -> None: ...

    def open(self, *args: object, **kwargs: object) -> dict[str, object]:
        return {"providers": list(self.providers)}

    def feed(self, **kwargs: object) -> None: ...

    def profile(self, runs: int) -> list[dict[str, object]]:
        return [
            {"name": "conv1", "op": "Conv", "provider": "CUDAExecutionProvider"},
            {"name": "conv2", "op": "FusedConv", "provider": CPU},
            {"name": "shape", "op": "Shape", "provider": CPU},
        ]


class Dropped(FallenBack):
    providers = (CPU,)

    def profile(self, runs: int) -> list[dict[str, object]]:
        return []


def test_a_silent_fall_back_is_exit_4_unless_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placement, "Worker", FallenBack)
    with pytest.raises(EnvironmentProblem, match=r"does not run on CUDA.*conv2") as caught:
        check_placement(tmp_path / "model.onnx", "cuda")
    assert caught.value.exit_code == 4
    assert check_placement(tmp_path / "model.onnx", "cuda", allow_fallback=True) == ["conv2"]
    monkeypatch.setattr(placement, "Worker", Dropped)
    with pytest.raises(EnvironmentProblem, match="dropped"):
        check_placement(tmp_path / "model.onnx", "cuda")


def test_placement_on_the_cpu_is_read_from_a_real_run(tmp_path: Path) -> None:
    assert check_placement(conv_file(tmp_path, 16), CPU) == []
    assert misplaced([{"name": "c", "op": "Conv", "provider": CPU}], "CUDAExecutionProvider") == [
        "c"
    ]
