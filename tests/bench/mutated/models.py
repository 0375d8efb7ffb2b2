"""Weights of one's own, and ONNX files with changed bytes."""

from __future__ import annotations

import io
import random
from pathlib import Path

from mutated.changes import Case, mutate_bytes


def weights_reader(suffix: str) -> Case:
    """Weights of one's own, adopted."""
    import torch
    from safetensors.torch import save

    from pipeline.models.registry import BUILTIN

    torch.manual_seed(0)
    state = {k: v.contiguous() for k, v in BUILTIN["resnet20"](num_classes=3).state_dict().items()}
    small = dict(list(state.items())[:12])
    buffer = io.BytesIO()
    torch.save({"state_dict": small, "epoch": 3}, buffer)
    whole = save(small) if suffix == ".safetensors" else buffer.getvalue()
    header = 8 + int.from_bytes(whole[:8], "little") if suffix == ".safetensors" else len(whole)

    def case(chance: random.Random, folder: Path) -> list[list[str]]:
        path = folder / f"w{suffix}"
        if chance.random() < 0.7:  # the header, where all meaning is
            path.write_bytes(mutate_bytes(whole[:header], chance) + whole[header:])
        else:
            path.write_bytes(mutate_bytes(whole, chance))
        return [["weights", str(path)]]

    return case


def onnx_reader(run: Path) -> Case:
    """Described without a session, as `rlp inspect` does."""
    whole = (run / "export" / "base.onnx").read_bytes()
    graph = whole[:3000] + whole[-20000:]

    def case(chance: random.Random, folder: Path) -> list[list[str]]:
        path = folder / "m.onnx"
        path.write_bytes(mutate_bytes(chance.choice([whole, graph]), chance))
        return [["inspect", str(path)]]

    return case


def load(path: str) -> None:
    """As `model.weights` is read."""
    from pipeline.models import load_weights

    load_weights(Path(path))
