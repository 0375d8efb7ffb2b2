"""Training steps a second with and without `keep_freed_memory`, each in a fresh process, in turn.

python tests/bench/allocator.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys

STEP = """
import sys, time, torch
from pipeline.config.schema import ModelConfig
from pipeline.models import build_model
from pipeline.training import machine
if sys.argv[1] == "keep":
    assert machine.keep_freed_memory()
else:
    machine.keep_freed_memory = lambda: False
kwargs = {"stem_stride": 2, "strides": [1, 1, 2, 2, 1, 2, 1]}
config = ModelConfig(source="mobilenet_v2", kwargs=kwargs)
model = build_model(config, in_channels=3, num_classes=10)
model = model.to(memory_format=torch.channels_last).train()
x = torch.randn(128, 3, 32, 32).contiguous(memory_format=torch.channels_last)
y = torch.randint(0, 10, (128,))
with machine.all_cores():
    for step in range(13):
        if step == 3:
            start = time.perf_counter()
        torch.nn.functional.cross_entropy(model(x), y).backward()
print(10 * 128 / (time.perf_counter() - start))
"""


def images_per_second(how: str) -> float:
    done = subprocess.run(
        [sys.executable, "-c", STEP, how], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def main() -> None:
    rows = [(images_per_second("default"), images_per_second("keep")) for _ in range(3)]
    for default, keep in rows:
        print(
            f"default {default:7.0f} images/s   keep {keep:7.0f} images/s   ratio "
            f"{keep / default:.2f}"
        )
    print(
        f"median ratio {statistics.median(keep / default for default, keep in rows):.2f}, n = "
        f"{len(rows)} pairs"
    )


if __name__ == "__main__":
    main()
