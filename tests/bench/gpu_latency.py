"""Original against final ONNX file on a GPU: CUDA, and TensorRT where it loads, fp32 and fp16.

    python -P tests/bench/gpu_latency.py [ORIGINAL.onnx FINAL.onnx]... [--runs FOLDER]
        [--batches 1,32,256] [--providers cuda,tensorrt] [--seconds 0.4] [--json FILE]

Inputs and outputs stay on the GPU (IO binding). Both files are timed in turn, a slot each, so that
what disturbs one disturbs the other; a ratio is of the medians, its interval a bootstrap over the
slots. fp16 files are converted as by the stage `quantize`, but without looking for values beyond
fp16's range; how far their answers are from fp32 is in the row. A provider that leaves any
convolution to the CPU is refused: its row says so. `--runs`: every run below FOLDER that was
exported. `--providers cpu` tries all of it without a GPU.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from pipeline.runtime.quantizer import Quantizer

PROVIDERS = {
    "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider",
    "cpu": "CPUExecutionProvider",
}  # fmt: skip
SLOTS, WARM = 12, 5  # slots a file; calls before the first
HEAVY = ("Conv", "FusedConv", "Gemm", "MatMul", "FusedGemm")


def wanted(provider: str, cache: Path) -> tuple[str, dict[str, Any]]:
    """A provider and its options."""
    if provider == "tensorrt":
        how = {"trt_engine_cache_enable": True, "trt_engine_cache_path": str(cache)}
        return PROVIDERS[provider], how
    if provider == "cpu":
        return PROVIDERS[provider], {}
    # trying every algorithm for every shape would take minutes
    return PROVIDERS[provider], {"cudnn_conv_algo_search": "HEURISTIC"}


class Refused(Exception):
    """The provider does not run the file, or not all of it."""


def load_libraries() -> None:
    """What torch brings of CUDA and cuDNN: onnxruntime finds it once it is loaded."""
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()


def fp16(path: Path) -> bytes:
    """The file with weights and arithmetic in fp16, inputs and outputs in fp32."""
    with Quantizer() as quantizer:
        quantizer.hold(path)
        return quantizer.halve()[0]


class Timed:
    """A session whose inputs and outputs stay on the GPU."""

    def __init__(self, data: bytes, provider: str, cache: Path) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        chosen = [wanted(provider, cache), "CPUExecutionProvider"]
        self.device = "cpu" if provider == "cpu" else "cuda"
        if provider == "cpu":
            chosen.pop()
        self.session = ort.InferenceSession(data, options, providers=chosen)
        if PROVIDERS[provider] not in self.session.get_providers():
            raise Refused(f"{PROVIDERS[provider]} does not load; {self.session.get_providers()} do")

    def bind(self, batch: int) -> None:
        """Images of one call from now on."""
        given = self.session.get_inputs()[0]
        x = np.random.default_rng(0).standard_normal([batch, *given.shape[1:]])
        self.binding = self.session.io_binding()
        self.value = ort.OrtValue.ortvalue_from_numpy(x.astype(np.float32), self.device, 0)
        self.binding.bind_ortvalue_input(given.name, self.value)
        self.binding.bind_output(self.session.get_outputs()[0].name, self.device, 0)

    def answers(self) -> np.ndarray:
        self.session.run_with_iobinding(self.binding)
        return self.binding.copy_outputs_to_cpu()[0]

    def seconds(self, calls: int) -> float:
        """Of one call, over `calls` of them; onnxruntime waits for each."""
        began = time.perf_counter()
        for _ in range(calls):
            self.session.run_with_iobinding(self.binding)
        return (time.perf_counter() - began) / calls


def placed(data: bytes, provider: str, cache: Path) -> None:
    """Refuse what leaves a convolution or a product to the CPU, as the profile of a call says."""
    if provider == "cpu":
        return
    options = ort.SessionOptions()
    options.enable_profiling, options.log_severity_level = True, 3
    options.profile_file_prefix = str(cache / "profile")
    chosen = [wanted(provider, cache), "CPUExecutionProvider"]
    session = ort.InferenceSession(data, options, providers=chosen)
    given = session.get_inputs()[0]
    session.run(None, {given.name: np.zeros([1, *given.shape[1:]], np.float32)})
    file = Path(session.end_profiling())
    events = json.loads(file.read_text(encoding="utf-8"))
    file.unlink()
    left = {
        event["args"]["op_name"] for event in events
        if event.get("args", {}).get("provider") == "CPUExecutionProvider"
    }  # fmt: skip
    if found := sorted(left & set(HEAVY)):
        raise Refused(f"{PROVIDERS[provider]} leaves {', '.join(found)} to the CPU")


def compared(one: Timed, other: Timed, seconds: float) -> dict[str, Any]:
    """Milliseconds of both, and original / final with a 95 % interval."""
    for timed in (one, other):
        timed.seconds(WARM)
    calls = max(1, int(seconds / SLOTS / max(timed.seconds(3) for timed in (one, other))))
    slots = np.array([[one.seconds(calls), other.seconds(calls)] for _ in range(SLOTS)])
    rng = np.random.default_rng(0)
    picks = slots[rng.integers(SLOTS, size=(2000, SLOTS))]
    medians = np.median(picks, axis=1)
    low, high = np.percentile(medians[:, 0] / medians[:, 1], [2.5, 97.5])
    base, final = (statistics.median(column) for column in slots.T)
    return {
        "original_ms": 1e3 * base, "final_ms": 1e3 * final, "speedup": base / final,
        "interval": [float(low), float(high)], "calls": calls * SLOTS,
    }  # fmt: skip


def rows(pairs: list[tuple[str, Path, Path]], options: Any) -> Iterator[dict[str, Any]]:
    """One for each pair, provider, precision and batch."""
    for name, *files in pairs:
        for provider in options.providers.split(","):
            whole: Timed | None = None
            for precision in ("fp32", "fp16"):
                at = {"network": name, "provider": provider, "precision": precision}
                try:
                    data = [f.read_bytes() if precision == "fp32" else fp16(f) for f in files]
                    placed(data[1], provider, options.cache)
                    both = [Timed(one, provider, options.cache) for one in data]
                    whole = whole or both[1]
                    for batch in map(int, options.batches.split(",")):
                        yield {
                            **at,
                            "batch": batch,
                            **timed_at(batch, *both, whole, options.seconds),
                        }
                except Exception as error:  # whatever a provider raises is the row
                    yield {**at, "refused": f"{type(error).__name__}: {error}"[:300]}


def timed_at(batch: int, one: Timed, other: Timed, whole: Timed, seconds: float) -> dict[str, Any]:
    """Both at one size, and how far the final's answers are from those in fp32."""
    for timed in {one, other, whole}:
        timed.bind(batch)
    apart = np.abs(other.answers() - whole.answers()).max() / np.abs(whole.answers()).max()
    return {**compared(one, other, seconds), "from_fp32": float(apart)}


def pairs_of(options: Any) -> list[tuple[str, Path, Path]]:
    files = [Path(file) for file in options.files]
    found = [(final.stem, base, final) for base, final in zip(files[::2], files[1::2], strict=True)]
    if options.runs:
        folders = sorted(options.runs.iterdir(), key=lambda folder: (len(folder.name), folder.name))
        for folder in folders:
            base, final = (folder / "export" / f"{name}.onnx" for name in ("base", "model"))
            if base.exists() and final.exists():
                found.append((folder.name, base, final))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*")
    parser.add_argument("--runs", type=Path)
    parser.add_argument("--batches", default="1,32,256")
    parser.add_argument("--providers", default="cuda,tensorrt")
    parser.add_argument("--seconds", type=float, default=0.4, help="of both files, a setting")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--cache", type=Path, default=Path("artifacts/tensorrt"))
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    load_libraries()
    pairs, found = pairs_of(options), []
    print(f"onnxruntime {ort.__version__}, {ort.get_available_providers()}; {len(pairs)} pairs")
    for row in rows(pairs, options):
        found.append(row)
        print(json.dumps(row), flush=True)
        if options.json:
            document = {"onnxruntime": ort.__version__, "rows": found}
            options.json.write_text(json.dumps(document, indent=1), encoding="utf-8")
    return 0 if any("speedup" in row for row in found) else 1


if __name__ == "__main__":
    sys.exit(main())
