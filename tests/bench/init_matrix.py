"""`rlp init` on five networks × four folders of images, and each config it writes run unedited
through `--until prune`.

    python tests/bench/init_matrix.py [--folder DIR] [--networks A,B]

The folders: classes of pictures of many sizes, Hub-style parquet of small ones, a flat folder with
a labels.csv, and one without, which is refused. What makes a run quick is given to `rlp init` by
--set, so that it stands in the config. timm's network is left out, and that is said, where timm is
not installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import parquet

NETWORKS = (
    "resnet20", "torchvision:mobilenet_v3_small", "torchvision:squeezenet1_1", "timm:resnet10t",
    "own/nets.py:small",
)  # fmt: skip
QUICK = (
    "data.train_limit=60", "data.test_limit=20", "pretrain.epochs=1", "rotate.images=16",
    "search.trials=2", "search.images=10", "search.fit_images=16", "search.finalists=1",
    "search.table.images=8", "search.table.widths=2",
)  # fmt: skip
OWN = """
from torch import nn

def small(num_classes=10, in_channels=3):
    return nn.Sequential(
        nn.Conv2d(in_channels, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2), nn.BatchNorm2d(32), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, num_classes),
    )
"""
FOLDERS = ("classes", "parquet", "listed", "flat")
CLASSES = ("circle", "noise", "stripes")


def picture(generator: np.random.Generator, label: int, height: int, width: int) -> bytes:
    """A PNG of one of the classes."""
    y, x = np.mgrid[:height, :width] / min(height, width)
    shape = ((x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.1, np.zeros_like(x), np.sin(40 * x) > 0)[label]
    pixels = generator.integers(0, 120, (height, width, 3)) + 100 * shape[..., None]
    stream = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def make(home: Path, count: int = 40) -> None:
    """The network of one's own, and the three folders, below `home`."""
    generator = np.random.default_rng(0)
    for name in ("own", *FOLDERS):
        (home / name).mkdir(parents=True)
    (home / "own" / "nets.py").write_text(OWN)
    lines = ["file,label"]
    for label, name in enumerate(CLASSES):
        (home / "classes" / name).mkdir()
        for i in range(count):
            data = picture(generator, label, *generator.integers(60, 120, 2))
            (home / "classes" / name / f"{i}.png").write_bytes(data)
            for flat in ("flat", "listed"):
                (home / flat / f"{name}{i}.png").write_bytes(data)
            lines.append(f"{name}{i}.png,{name}")
    (home / "listed" / "labels.csv").write_text("\n".join(lines))
    for split, each in (("train", count), ("test", 8)):
        rows = [
            (label, picture(generator, label, 32, 32)) for label in range(3) for _ in range(each)
        ]
        images = [{"bytes": data, "path": None} for _, data in rows]
        table = pa.table({"image": images, "label": [label for label, _ in rows]})
        parquet.write_table(table, home / "parquet" / f"{split}-00000-of-00001.parquet")


def rlp(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-P", "-c", "from pipeline.cli import main; main()"]
    return subprocess.run([*program, *words], cwd=cwd, capture_output=True, text=True, timeout=1800)


def tried(home: Path, network: str, folder: str) -> str:
    """What came of it, in a line."""
    name = f"{network}-{folder}".translate(str.maketrans(":/.", "---"))
    sets = [word for setting in QUICK for word in ("--set", setting)]
    asked = ("init", "--model", network, "--data", folder, "--out", f"{name}.yaml", "--json")
    start = time.monotonic()
    done = rlp(*asked, *sets, cwd=home)
    took = f"init {time.monotonic() - start:.0f} s"
    if done.returncode:
        written = " AND WRITTEN" if (home / f"{name}.yaml").exists() else ", nothing written"
        return f"exit {done.returncode}{written}: {json.loads(done.stdout)['error']['message']}"
    seen = json.loads(done.stdout)
    size = "×".join(map(str, seen["images"]["image_shape"]))
    start = time.monotonic()
    ran = rlp("pipeline", "run", f"{name}.yaml", "--until", "prune", cwd=home)
    if ran.returncode:
        return f"FAILED with {ran.returncode}: {ran.stderr.splitlines()[-2:]}"
    cut = json.loads((home / "artifacts" / name / "prune" / "manifest.json").read_text())
    left = cut["summary"]["macs_fraction"]
    return f"{size}, {took}, run {time.monotonic() - start:.0f} s, {left:.2f} of the MACs"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--folder", type=Path, help="where to work; absent: a temporary folder")
    parser.add_argument("--networks", default=",".join(NETWORKS))
    given = parser.parse_args()
    home = given.folder or Path(tempfile.mkdtemp(prefix="rlp-init-"))
    make(home)
    failed = 0
    for network in given.networks.split(","):
        for folder in FOLDERS:
            if network.startswith("timm:") and importlib.util.find_spec("timm") is None:
                line = "NOT TRIED: timm is not installed"
            else:
                line = tried(home, network, folder)
            wanted = "exit 2, nothing written" if folder == "flat" else "×"
            failed += wanted not in line and "NOT TRIED" not in line
            print(f"{network:<32} {folder:<8} {line}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
