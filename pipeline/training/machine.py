"""What this machine is best at: threads, and whether bf16 autocast pays."""

from __future__ import annotations

import copy
import ctypes
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cache
from typing import Literal

import torch
from torch import Tensor, nn

from pipeline.errors import EnvironmentProblem, Hint
from pipeline.system import usable_cores
from pipeline.training.objectives import Objective
from pipeline.words import count_of

# Below that a probe on a busy machine may be noise, and fp32 is the safer arithmetic.
CLEARLY_FASTER = 1.25


@cache
def keep_freed_memory() -> bool:
    """Ask glibc to reuse freed memory and not hand it back to the kernel; False where it cannot.

    Every training step frees its activations and asks for the same sizes again. Handed back, they
    are mapped and zeroed anew page by page; `tests/bench/allocator.py` measures what that costs.
    """
    mmap_max, trim_threshold, top_pad = -4, -1, -2  # the numbers of malloc.h
    with suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        return bool(
            mallopt(mmap_max, 0)  # a mapped block would be unmapped as soon as it is freed
            and mallopt(trim_threshold, 2**31 - 1)
            and mallopt(top_pad, 1 << 28)
        )
    return False


@contextmanager
def all_cores() -> Iterator[int]:
    """Compute on every core we may use, no more, and yield their number; obeys OMP_NUM_THREADS."""
    keep_freed_memory()
    before = torch.get_num_threads()
    threads = before if os.environ.get("OMP_NUM_THREADS") else usable_cores()
    torch.set_num_threads(threads)
    try:
        yield threads
    finally:
        torch.set_num_threads(before)


def device_for(setting: str) -> torch.device:
    """The device that the config's `device` names; for "auto" the GPU where torch sees one.

    Raises:
        EnvironmentProblem: torch sees no such GPU.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if setting == "auto":
        setting = "cuda" if count else "cpu"
    chosen = torch.device(setting)
    if chosen.type == "cpu":
        return chosen
    if (chosen.index or 0) >= count:
        there = count_of(count, "GPU") if count else "no GPU"
        raise EnvironmentProblem(
            f"device: {setting} was asked for, and torch {torch.__version__} sees {there}",
            hint=Hint.set("device", "auto", "takes what is there"),
        )
    # with a number, as tensors have it: they are compared
    return torch.device("cuda", chosen.index or 0)


@contextmanager
def exact_float32() -> Iterator[None]:
    """Convolutions on a GPU round as float32 does, not as TF32: what is fitted, compared or proved
    would be off by a thousandth.
    """
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def autocast(
    device: torch.device, precision: Literal["fp32", "bf16"]
) -> AbstractContextManager[None]:
    """bf16 autocast on `device`, or nothing for fp32."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def faster_precision(
    model: nn.Module, x: Tensor, y: Tensor, objective: Objective, rounds: int = 3
) -> Literal["fp32", "bf16"]:
    """Time forward and backward both ways on a copy of `model`; bf16 only when clearly faster.

    Args:
        x, y: a batch (B, C, H, W) float32 on the model's device, and what `objective` takes for it.
        rounds: timed passes of each precision, in turn.
    """
    probe = copy.deepcopy(model).train()  # its passes move batch-norm statistics
    seconds: dict[Literal["fp32", "bf16"], list[float]] = {"fp32": [], "bf16": []}
    with torch.random.fork_rng():
        for _ in range(rounds + 1):  # the first round warms up
            for precision, times in seconds.items():
                start = time.perf_counter()
                with autocast(x.device, precision):
                    loss = objective(probe, x, y)
                loss.backward()
                loss.item()  # waits for a GPU
                times.append(time.perf_counter() - start)
    fp32, bf16 = (min(times[1:]) for times in seconds.values())  # other work only adds time
    return "bf16" if fp32 > CLEARLY_FASTER * bf16 else "fp32"
