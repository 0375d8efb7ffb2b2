"""Every device check on the pretended GPU; a process of its own, since torch keeps such a device
for good. `python tests/pretended_run.py FOLDER`: prints the names of the checks that pass.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import device_checks
import torch
from pretended_gpu import GPU, pretended_gpu

import stages.distill.stage
import stages.pretrain.stage
import stages.reconstruct.stage
import stages.rotate.stage
import stages.search.stage  # noqa: F401 what `pretend` must find
from pipeline.training import machine


def pretend() -> None:
    """Let the setting `device` mean the pretended GPU, wherever it was imported to."""
    before = machine.device_for
    for module in list(sys.modules.values()):
        if getattr(module, "device_for", None) is before:
            module.device_for = lambda setting: GPU


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    with pretended_gpu() as device:
        for check in device_checks.CHECKS:
            device_checks.exactly(check, device)
            print(check.__name__, flush=True)
        pretend()
        with contextlib.redirect_stdout(sys.stderr):
            device_checks.check_pipeline(device, folder, "distill")
        print(device_checks.check_pipeline.__name__)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
