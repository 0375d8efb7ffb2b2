"""Data sets of every layout, one file of which is damaged or is no file."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

from mutated.changes import Case, mutate_bytes


def images_reader(kind: str, made: Path) -> Case:
    """A data set in one of its layouts, made in the folder `made`, one file of which is changed."""
    import tiny_sets

    made.mkdir()
    if kind == "parquet":
        for split in ("train", "test"):
            tiny_sets.write_parquet(made / f"{split}-00000-of-00001.parquet", tiny_sets.rows(9))
    elif kind == "idx":
        import numpy as np

        for split in ("train", "t10k"):
            pixels = np.arange(9 * 64).reshape(9, 8, 8)
            tiny_sets.write_idx(made / f"{split}-images-idx3-ubyte", pixels)
            tiny_sets.write_idx(made / f"{split}-labels-idx1-ubyte", np.arange(9) % 3)
    elif kind == "cifar":
        tiny_sets.write_cifar_binary(made)
    else:
        _write_folders(made)
    files = sorted(p for p in made.rglob("*") if p.is_file())

    def case(chance: random.Random, folder: Path) -> list[list[str]]:
        root = Path(shutil.copytree(made, folder / "data"))
        path = root / chance.choice(files).relative_to(made)
        if kind == "folders" and chance.random() < 0.4:
            _strange(path, chance)
        else:
            path.write_bytes(mutate_bytes(path.read_bytes(), chance))
        return [["data", "import", str(root)]]

    return case


def _write_folders(root: Path) -> None:
    import tiny_sets

    formats = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
    for split in ("train", "test"):
        for label, name in enumerate(tiny_sets.CLASSES):
            for k, fmt in enumerate(formats):
                path = root / split / name / f"{k}.{fmt.lower()}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(tiny_sets.picture(label, k, fmt=fmt))


def _strange(path: Path, chance: random.Random) -> None:
    """Something in the place of an image that is no file, or under a name that is no text."""
    kind = chance.randrange(7)
    path.unlink()
    if kind == 0:
        os.mkfifo(path)
    elif kind == 1:
        path.symlink_to("/dev/zero")
    elif kind == 2:
        path.symlink_to("nowhere")
    elif kind == 3:
        path.mkdir()
    elif kind == 4:
        path.symlink_to(path.name)
    elif kind == 5:
        path.touch()
        os.truncate(path, 40 << 30)
    else:
        (path.parent / "\udcff\x1b[31m.png").write_bytes(b"\x89PNG")
