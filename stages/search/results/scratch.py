"""Small files that an interrupted search finds again, beside its journal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.errors import ArtifactError
from pipeline.run.store import read_json, write_json, write_tensors

MAX_BYTES = 1 << 20
ALIGNMENT = "alignment.json"
PRECISION = "precision.json"
START_LATENCY = "start_latency.json"
_POLICY = "policy.safetensors"


class Scratch:
    """Files in the stage's scratch folder, which is emptied once the stage has committed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, name: str) -> Any:
        """The document that `write` left; None where there is none that can be read."""
        path = self.folder / name
        if not path.exists():
            return None
        try:
            return read_json(path, max_bytes=MAX_BYTES)
        except ArtifactError:
            return None

    def write(self, name: str, document: Mapping[str, Any]) -> None:
        """Keep a document of plain JSON types."""
        write_json(self.folder / name, document)

    def write_policy(self, state: Mapping[str, NDArray[np.float64]], trials: int) -> None:
        """What a policy has learned, for people; the journal alone is what resuming needs."""
        tensors = {name: torch.from_numpy(values) for name, values in state.items()}
        write_tensors(self.folder / _POLICY, tensors, {"trials": str(trials)})
