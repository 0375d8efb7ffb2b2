"""Put the weights of a finished `rlp stage pretrain` into pretrained_model/ and record how they
came about.

    python tools/publish_weights.py artifacts/RUN mobilenet_v2_cifar10_original --command "rlp stage
    pretrain ..."

Stored in half precision (half the size; the accuracy recorded is that of the stored file, on the
test split).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from pipeline.data import load_test
from pipeline.models import load_model
from pipeline.run import store
from pipeline.run.manifest import read_manifest
from pipeline.run.runner import describe_data, read_run
from pipeline.training import accuracy

FOLDER = Path(__file__).resolve().parent.parent / "pretrained_model"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("name", help="{model}_{dataset}_original")
    parser.add_argument("--command", required=True, help="the command that trained them, exactly")
    args = parser.parse_args()

    config, _ = read_run(args.run)
    manifest = read_manifest(args.run, "pretrain")
    if manifest is None:
        raise SystemExit(f"{args.run}: stage pretrain has not run")
    card = describe_data(config)
    model = load_model(args.run / "pretrain").eval()
    halves = {
        name: t.half() if t.is_floating_point() else t for name, t in model.state_dict().items()
    }
    digest = store.write_tensors(FOLDER / f"{args.name}.safetensors", halves)
    model.load_state_dict(
        {name: t.float() if t.is_floating_point() else t for name, t in halves.items()}
    )
    with torch.inference_mode():
        score = accuracy(model, load_test(config.data))
    path = FOLDER / "MANIFEST.json"
    entries = (
        json.loads(path.read_text()) if path.exists() else {"schema_version": 1, "weights": {}}
    )
    entries["weights"][f"{args.name}.safetensors"] = {
        "sha256": digest,
        "model": config.model.model_dump(mode="json", exclude={"weights"}),
        "data": {"label": card.label, "sha256": card.sha256, "images": card.images},
        "command": args.command,
        "seed": config.seed,
        "pretrain": config.pretrain.model_dump(mode="json"),
        "test_accuracy": round(score, 4),
        "stored_as": "float16",
        "device": manifest["device"],
        "duration_s": manifest["duration_s"],
        "versions": manifest["versions"],
    }
    store.write_json(path, entries)
    print(f"{args.name}: test accuracy {score:.2%}, sha256 {digest[:16]}")


if __name__ == "__main__":
    main()
