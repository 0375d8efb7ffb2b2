"""The device checks on a real GPU, and on one that is none; what a config may ask for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import device_checks
import pytest
import torch
from quantize_nets import labelled, quadrants

from pipeline.config.schema import Config
from pipeline.errors import EnvironmentProblem, OutOfMemory
from pipeline.training import machine
from pipeline.training.machine import exact_float32
from stages.benchmark.protocol import Setting
from stages.quantize import half_onnx

ROOT = Path(__file__).parents[1]


@pytest.mark.gpu
@pytest.mark.parametrize("check", device_checks.CHECKS, ids=lambda check: check.__name__)
def test_what_is_computed_on_a_gpu(check: device_checks.Check) -> None:
    device_checks.exactly(check, torch.device("cuda", 0))


@pytest.mark.gpu
def test_a_whole_run_on_a_gpu(tmp_path: Path) -> None:
    device_checks.check_pipeline(torch.device("cuda", 0), tmp_path, "benchmark")


@pytest.mark.gpu
def test_fp16_on_a_gpu(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has no CUDA provider: it takes onnxruntime-gpu")
    path = quadrants(tmp_path / "net.onnx")
    report = half_onnx(
        path, tmp_path / "half.onnx", labelled(64, 1), labelled(), setting=Setting("cuda")
    )
    parity = report.to_dict()["parity"]
    assert parity["top1_agreement"] == 1
    assert 0 < parity["output_error"] < 5e-3


@pytest.mark.gpu
def test_memory_of_a_search_on_a_gpu_is_about_what_is_expected() -> None:
    device = torch.device("cuda", 0)
    with exact_float32():
        device_checks.search_memory(device)  # cuBLAS and cuDNN take their workspaces once
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        expected = device_checks.search_memory(device)
    taken = torch.cuda.max_memory_allocated(device) - before
    # a convolution's own workspace comes on top of what is counted
    assert expected / 2 < taken < expected * 2 + (64 << 20)


@pytest.mark.slow
def test_nothing_is_left_on_the_cpu() -> None:
    """In a process of its own: torch keeps a device that was made up."""
    done = subprocess.run(
        [sys.executable, "tests/pretended_run.py"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        capture_output=True, text=True, timeout=550,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    wanted = [check.__name__ for check in device_checks.CHECKS]
    assert done.stdout.split() == wanted


def test_auto_takes_the_gpu_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.device_for("cpu") == torch.device("cpu")
    for count, found in ((0, "cpu"), (2, "cuda:0")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda count=count: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=count: count)
        assert str(machine.device_for("auto")) == found
    assert str(machine.device_for("cuda:1")) == "cuda:1"
    with pytest.raises(EnvironmentProblem, match="cuda:2 was asked for") as refused:
        machine.device_for("cuda:2")
    assert "--set device=auto" in refused.value.hint


@pytest.mark.parametrize("wrong", ["gpu", "cuda:", "CUDA", "cuda:x", ""])
def test_a_device_that_there_is_not(wrong: str) -> None:
    with pytest.raises(ValueError, match="device"):
        Config(device=wrong)


@pytest.mark.parametrize(
    "text",
    [
        "CUDA out of memory. Tried to allocate 20.00 MiB",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "cusolver error: CUSOLVER_STATUS_INTERNAL_ERROR, when calling `cusolverDnCreate(handle)`.",
    ],
)
def test_a_full_gpu_is_out_of_memory(text: str) -> None:
    assert OutOfMemory.said_by(RuntimeError(text))
    assert not OutOfMemory.said_by(RuntimeError("CUDA error: an illegal memory access"))
    failed = "cusolver error: CUSOLVER_STATUS_INTERNAL_ERROR, when calling `cusolverDnSpotrf(...)`"
    assert not OutOfMemory.said_by(RuntimeError(failed))
