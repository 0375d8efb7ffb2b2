"""Make pipeline/data/embedded/: a class-balanced subset of Fashion-MNIST as two PNG strips and an
index.

Needs the Debian package `dataset-fashion-mnist` (30 MB) and no root:

    apt-get download dataset-fashion-mnist && dpkg -x dataset-fashion-mnist_*.deb unpacked
    python tools/make_embedded.py unpacked

The subset is the first `--train` ÷ 10 (`--test` ÷ 10) images of every class in the order of the
original files, interleaved by class so that any prefix is balanced. Image k of a strip is its rows
28·k … 28·k + 27. Running it again writes the same pixels; the PNG bytes also depend on the version
of Pillow's zlib.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.data.sources.idx import FASHION_CLASSES, read_idx
from pipeline.system import sha256_file

OUT = Path(__file__).resolve().parents[1] / "pipeline" / "data" / "embedded"


def balanced(labels: np.ndarray, total: int) -> np.ndarray:
    """Indices of the first `total` ÷ classes images of every class, interleaved: class 0, 1, …
    9, 0, 1, …
    """
    each = total // len(FASHION_CLASSES)
    return np.stack(
        [np.flatnonzero(labels == k)[:each] for k in range(len(FASHION_CLASSES))], axis=1
    ).reshape(-1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "unpacked", type=Path, help="folder into which the Debian package was unpacked"
    )
    parser.add_argument("--train", type=int, default=12_000)
    parser.add_argument("--test", type=int, default=2_000)
    args = parser.parse_args()
    folder = next(args.unpacked.rglob("train-images-idx3-ubyte.gz")).parent
    OUT.mkdir(parents=True, exist_ok=True)
    index: dict[str, object] = {
        "name": "fashion-mnist-12k",
        "classes": list(FASHION_CLASSES),
        "shape": [1, 28, 28],
        "splits": {},
    }
    for split, prefix, total in (("train", "train", args.train), ("test", "t10k", args.test)):
        images = read_idx(folder / f"{prefix}-images-idx3-ubyte.gz")
        labels = read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz")
        chosen = balanced(labels, total)
        path = OUT / f"{split}.png"
        Image.fromarray(images[chosen].reshape(-1, 28)).save(path, optimize=True)
        index["splits"][split] = {  # type: ignore[index]
            "file": path.name,
            "sha256": sha256_file(path),
            "images": len(chosen),
            "labels": "".join(str(label) for label in labels[chosen]),
        }
        print(f"{path.name}: {len(chosen)} images, {path.stat().st_size:,} bytes")
    (OUT / "index.json").write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
