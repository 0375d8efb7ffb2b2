"""Every device check on the pretended GPU; a process of its own, since torch keeps such a device
for good. `python tests/pretended_run.py`: prints the names of the checks that pass.
"""

from __future__ import annotations

import device_checks
import torch
from pretended_gpu import pretended_gpu


def main() -> None:
    torch.set_num_threads(1)
    with pretended_gpu() as device:
        for check in device_checks.CHECKS:
            device_checks.exactly(check, device)
            print(check.__name__, flush=True)


if __name__ == "__main__":
    main()
