"""Does onnxruntime say what PyTorch says, on real images, and is the task accuracy the same?"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pipeline.errors import Command, EnvironmentProblem, Hint, Key, Refused, Set
from pipeline.modes import mode
from pipeline.run.store import sha256_file
from pipeline.runtime.providers import CPU
from pipeline.runtime.worker import Worker


@dataclass(frozen=True)
class ParityRow:
    """One provider at one batch size.

    Attributes:
        max_abs, p50_abs, p99_abs: of |onnxruntime - PyTorch| over all outputs.
        max_rel, p50_rel, p99_rel: the same divided by the largest |output| of PyTorch on that
            image, so that logits near zero do not blow them up.
        top1_agreement: share of images on which both name the same class.
        accuracy_torch, accuracy_onnx: share of images that each names correctly.
    """

    provider: str
    batch: int
    images: int
    max_abs: float
    p50_abs: float
    p99_abs: float
    max_rel: float
    p50_rel: float
    p99_rel: float
    top1_agreement: float
    accuracy_torch: float
    accuracy_onnx: float

    def problems(self, min_agreement: float, max_accuracy_drop: float, max_rel: float) -> list[str]:
        """One sentence for every tolerance that this row misses."""
        where = f"{self.provider}, batch {self.batch}"
        found = []
        # `not … >=` and not `<`: NaN keeps no tolerance
        if not self.top1_agreement >= min_agreement:
            differ = round((1 - self.top1_agreement) * self.images)
            found.append(
                f"{where}: onnxruntime and PyTorch name another class on {differ} of {self.images} "
                f"images (agreement {self.top1_agreement:.4f}, at least {min_agreement} asked)"
            )
        if not self.accuracy_torch - self.accuracy_onnx <= max_accuracy_drop:
            found.append(
                f"{where}: accuracy {100 * self.accuracy_onnx:.2f} % in onnxruntime, "
                f"{100 * self.accuracy_torch:.2f} % in PyTorch"
            )
        if not self.max_rel <= max_rel:
            found.append(
                f"{where}: outputs differ by up to {self.max_rel:.1e} of the largest, "
                f"{max_rel:.0e} allowed"
            )
        return found


@dataclass(frozen=True)
class ParityReport:
    """All rows, the tolerances, and whether every row keeps them.

    Attributes:
        sha256: of the file that was compared.
    """

    rows: tuple[ParityRow, ...]
    min_top1_agreement: float
    max_accuracy_drop: float
    max_rel: float
    sha256: str

    @property
    def problems(self) -> list[str]:
        limits = (self.min_top1_agreement, self.max_accuracy_drop, self.max_rel)
        return [problem for row in self.rows for problem in row.problems(*limits)]

    @property
    def passed(self) -> bool:
        return not self.problems

    @property
    def top1_agreement(self) -> float:
        """The least of any row, a share of the images."""
        return min(row.top1_agreement for row in self.rows)

    @property
    def max_abs(self) -> float:
        """The largest of any row, in the unit of the outputs."""
        return max(row.max_abs for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; the smallest agreement and the largest difference beside the rows."""
        return {
            **asdict(self),
            "rows": [asdict(row) for row in self.rows],
            "passed": self.passed,
            "problems": self.problems,
            "top1_agreement": self.top1_agreement,
            "max_abs": self.max_abs,
        }

    def require(self) -> ParityReport:
        """Return self, or raise Refused with every tolerance missed."""
        if self.problems:
            raise Refused(
                f"ONNX parity out of tolerance: {self.problems[0]}",
                hint=Hint(
                    "try another ",
                    Key("export.opset"),
                    ", or ",
                    Set("export.exporter", "torchscript"),
                ),
                details=self.problems[1:],
            )
        return self


def check_parity(
    model: nn.Module,
    onnx_path: Path,
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    batches: tuple[int, ...] = (1, 32),
    providers: tuple[str, ...] = (CPU,),
    min_top1_agreement: float = 0.99,
    max_accuracy_drop: float = 0.005,
    max_rel: float | None = None,
    single_images: int = 64,
    allow_fallback: bool = False,
) -> ParityReport:
    """Compare the file, run in a child process, with `model` in eval mode.

    Args:
        x, y: real images (N, C, H, W) float32 normalised, and their classes (N,) int64.
        batches: batch sizes; batch 1 uses the first `single_images` images only.
        min_top1_agreement: share of images on which both must name the same class.
        max_accuracy_drop: how much lower the accuracy may be in onnxruntime, as a fraction.
        max_rel: largest output difference, as a fraction of the largest output of that image;
            None: 1e-4 where all providers are the CPU (float32 round-off is about 1e-6), else 1e-2
            (TF32, float16).
        allow_fallback: go on when the session drops a provider.
    Raises:
        ArtifactError, EnvironmentProblem: the file or the provider cannot be used.
    """
    if max_rel is None:
        max_rel = 1e-4 if set(providers) == {CPU} else 1e-2
    reference, classes = torch_outputs(model, x), y.numpy()
    rows = []
    for provider in providers:
        with Worker() as worker:
            _open(worker, onnx_path, provider, allow_fallback)
            for batch in batches:
                count = min(len(x), single_images) if batch == 1 else len(x)
                outputs = onnx_outputs(worker, x[:count].numpy(), batch)
                expected = reference[:count], outputs, classes[:count]
                rows.append(compare_outputs(*expected, provider, batch))
    limits = (min_top1_agreement, max_accuracy_drop, max_rel)
    return ParityReport(tuple(rows), *limits, sha256_file(onnx_path))


def _open(worker: Worker, path: Path, provider: str, allow_fallback: bool) -> None:
    opened = worker.open(path, provider=provider, threads=0)  # not timed: all cores
    if provider not in opened["providers"] and not allow_fallback:
        dropped = f"the session dropped {provider} and would run on {opened['providers'][0]}"
        raise EnvironmentProblem(
            f"{path.name}: {dropped}",
            hint=Hint(
                "check its libraries and driver with ",
                Command("doctor"),
                ", or ",
                Set("benchmark.allow_fallback", True),
            ),
        )


def torch_outputs(model: nn.Module, x: torch.Tensor, batch: int = 64) -> np.ndarray:
    """Outputs in eval mode, float32 (N, classes); the model is left as it was."""
    with mode(model, False), torch.inference_mode():
        return torch.cat([model(chunk).float().cpu() for chunk in x.split(batch)]).numpy()


def onnx_outputs(worker: Worker, x: np.ndarray, batch: int) -> np.ndarray:
    """Outputs of the worker's open session, (N, classes), `batch` images at a time."""
    return np.concatenate([worker.infer(x[at : at + batch]) for at in range(0, len(x), batch)])


def compare_outputs(
    reference: np.ndarray, outputs: np.ndarray, y: np.ndarray, provider: str = CPU, batch: int = 1
) -> ParityRow:
    """One row from two arrays (N, classes) and the true classes (N,).

    NaN and infinity count as the largest difference there is, so that the row stays plain JSON.
    """
    gap = np.abs(outputs.astype(np.float64) - reference.astype(np.float64))
    gap = np.where(np.isfinite(gap), gap, np.finfo(np.float64).max)
    # an image may have all outputs 0
    largest = np.maximum(np.abs(reference).max(axis=1, keepdims=True), np.finfo(np.float32).tiny)
    relative = gap / np.minimum(largest, np.finfo(np.float64).max)  # PyTorch's may be infinite
    named, expected = outputs.argmax(axis=1), reference.argmax(axis=1)
    return ParityRow(
        provider=provider,
        batch=batch,
        images=len(y),
        **{f"{name}_abs": value for name, value in _spread(gap).items()},
        **{f"{name}_rel": value for name, value in _spread(relative).items()},
        top1_agreement=float((named == expected).mean()),
        accuracy_torch=float((expected == y).mean()),
        accuracy_onnx=float((named == y).mean()),
    )


def _spread(values: np.ndarray) -> dict[str, float]:
    """Largest, median and 99 % quantile; what overflowed counts as the largest number."""
    found = {"max": values.max(), "p50": np.quantile(values, 0.5), "p99": np.quantile(values, 0.99)}
    return {name: float(min(value, np.finfo(np.float64).max)) for name, value in found.items()}
