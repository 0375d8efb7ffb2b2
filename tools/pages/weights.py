"""What pretrained_model/MANIFEST.json records of the shipped weights, as a table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tools.pages.text import cell

MANIFEST = Path(__file__).resolve().parents[2] / "pretrained_model" / "MANIFEST.json"


def table() -> str:
    """File, network, images, accuracy of the stored file on the test split, time to train."""
    entries = json.loads(MANIFEST.read_text(encoding="utf-8"))["weights"]
    lines = [
        "",
        "| file | network | images | test accuracy | trained in |",
        "|---|---|---|---|---|",
    ]
    for name, entry in entries.items():
        cells = (
            f"`{name}`",
            _network(entry["model"]),
            f"{entry['data']['label']}, {entry['data']['images']['test']:,} test images",
            f"{entry['test_accuracy']:.2%}",
            f"{entry['duration_s'] / 60:.0f} min ({entry['device']})",
        )
        lines.append(f"| {' | '.join(map(cell, cells))} |")
    return "\n".join([*lines, "", ""])


def _network(model: dict[str, Any]) -> str:
    settings = ", ".join(f"{name}: {value}" for name, value in model["kwargs"].items())
    return f"`{model['source']}`" + (f" with `{settings}`" if settings else "")
