"""An execution provider that is not there is said before anything is computed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.config.schema import Config
from pipeline.errors import EnvironmentProblem, UsageError
from pipeline.run.provider import missing_provider
from stages import declared


def steps(**actions: str) -> Any:
    """Of the real stages."""
    return [
        SimpleNamespace(action=action, stage=SimpleNamespace(stage=declared(name)))
        for name, action in actions.items()
    ]


def config(**keys: dict[str, Any]) -> Config:
    return Config.model_validate(keys)


@pytest.mark.parametrize("stage", ["export", "quantize", "benchmark"])
def test_the_stages_that_use_it_ask_for_it(stage: str) -> None:
    error = missing_provider(config(benchmark={"provider": "cuda"}), steps(**{stage: "run"}))
    assert isinstance(error, EnvironmentProblem)
    assert error.message.startswith("benchmark.provider: this onnxruntime has no CUDA")
    assert "pip install onnxruntime-gpu" in error.hint


def test_a_search_asks_for_its_own_and_a_name_that_nobody_knows_is_an_error_of_usage() -> None:
    wrong = config(search={"latency_provider": "cdua"})
    error = missing_provider(wrong, steps(search="run", benchmark="run"))
    assert isinstance(error, UsageError)
    assert "search.latency_provider: unknown execution provider 'cdua'" in error.message
    assert "tensorrt" in error.hint


def test_what_is_not_run_needs_nothing_and_the_cpu_is_there() -> None:
    gpu = config(benchmark={"provider": "CUDAExecutionProvider"})
    assert missing_provider(gpu, steps(search="run", export="reuse", benchmark="reuse")) is None
    assert missing_provider(config(benchmark={"provider": "cpu"}), steps(benchmark="run")) is None


def test_a_run_is_refused_before_its_first_stage(tmp_path: Path, rlp: Any) -> None:
    quickstart = str(Path(__file__).parents[3] / "configs" / "quickstart.yaml")
    command = ("pipeline", "run", quickstart, "--run-dir", str(tmp_path / "run"))
    refused = rlp(*command, "--set", "benchmark.provider=cuda")
    assert refused.code == 4
    assert "benchmark.provider" in refused.lines("error")[0]
    assert not (tmp_path / "run").exists()
    planned = rlp("pipeline", "plan", *command[2:], "--set", "benchmark.provider=cuda")
    assert planned.code == 0
    assert "would be refused: benchmark.provider" in planned.err
