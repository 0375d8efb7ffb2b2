"""A deploy folder in the hands of others: each tool in an environment of its own, with nothing of
rlp in it, answers on a folder of pictures.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
TORCH = re.findall(r"^torch==.*$", (ROOT / "constraints.txt").read_text(), re.M)[0]
ENVIRONMENTS = {
    "predict.py": ("onnxruntime", "numpy", "pillow"),
    # an unpinned torch pulls gigabytes
    "optimum": (TORCH, "transformers", "optimum-onnx", "onnxruntime", "pillow"),
    "openvino": ("openvino", "numpy"),
    "server": ("fastapi", "uvicorn", "onnxruntime", "numpy", "pillow"),
}
_MADE = "RLP_ENVIRONMENTS"

_OPTIMUM = """
import json, sys
from pathlib import Path
import numpy
from PIL import Image
from optimum.onnxruntime import ORTModelForImageClassification
from transformers import AutoImageProcessor
folder, pictures = sys.argv[1:]
model = ORTModelForImageClassification.from_pretrained(folder)
processor = AutoImageProcessor.from_pretrained(folder)
found = []
for path in sorted(Path(pictures).iterdir()):
    image = Image.open(path)
    if image.mode == "L":  # its processors take no grey image, but a plane of one
        image = numpy.asarray(image)[None]
    given = processor(image, return_tensors="pt")
    found.append(model.config.id2label[int(model(**given).logits.argmax())])
print(json.dumps(found))
"""
_OPENVINO = """
import json, sys
from pathlib import Path
import numpy, openvino
folder, prepared, files = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
labels = (folder / "labels.txt").read_text("utf-8").splitlines()
core, answers = openvino.Core(), {}
for name in files:
    network = core.compile_model(core.read_model(folder / name), "CPU")
    rows = numpy.load(prepared / ("pixels.npy" if "uint8" in name else "tensors.npy"))
    found = [network(part)[0].argmax(axis=1) for part in numpy.array_split(rows, len(rows))]
    answers[name] = [labels[i] for i in numpy.concatenate(found)]
print(json.dumps(answers))
"""


class NotToBeHad(Exception):
    """An environment cannot be made here, and why."""


def python_of(tool: str, below: Path) -> Path:
    """The interpreter of the environment of `tool`; made where $RLP_ENVIRONMENTS has none.

    Args:
        below: folder to make it in, where that variable is not set.
    Raises:
        NotToBeHad: what pip says.
    """
    home = Path(os.environ.get(_MADE, below)) / tool.removesuffix(".py")
    python = home / "bin" / "python"
    if python.exists():
        return python
    try:
        subprocess.run([sys.executable, "-m", "venv", home], check=True, capture_output=True)
        pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run(
            [*pip, *ENVIRONMENTS[tool]], check=True, capture_output=True, text=True, timeout=1500
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        said = str(error.stderr or error).strip().splitlines()
        raise NotToBeHad(f"{' '.join(ENVIRONMENTS[tool])}: {said[-1] if said else error}") from None
    return python


def by_predict_py(python: Path, deploy: Path, pictures: Path) -> list[str]:
    """The first label of every picture, by the folder's own script."""
    said = _run(python, str(deploy / "predict.py"), str(pictures), "--json", "--top", "1")
    return [row["labels"][0]["label"] for row in json.loads(said)["images"]]


def by_optimum(python: Path, deploy: Path, pictures: Path) -> list[str]:
    """The same by Hugging Face's loaders, which prepare the pictures themselves."""
    return [str(label) for label in json.loads(_run(python, "-c", _OPTIMUM, deploy, pictures))]


def by_openvino(
    python: Path, deploy: Path, prepared: Path, files: Sequence[str]
) -> dict[str, list[str]]:
    """The same by OpenVINO's runtime, for some files of the folder.

    Args:
        prepared: folder of `tensors.npy` (N, C, H, W) float32 and `pixels.npy` (N, H, W, C) uint8.
    """
    return dict(json.loads(_run(python, "-c", _OPENVINO, deploy, prepared, *files)))


@contextmanager
def served(python: Path, deploy: Path) -> Iterator[int]:
    """examples/server/server.py on a free port of loopback, which is yielded; ended afterwards.

    Raises:
        AssertionError: it did not start.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    script = ROOT / "examples" / "server" / "server.py"
    process = subprocess.Popen([python, script, deploy, "--port", str(port)], env=_clean())
    try:
        for _ in range(1200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None, "the server ended"
            time.sleep(0.05)
        else:
            raise AssertionError("the server did not start within a minute")
        yield port
    finally:
        process.terminate()
        process.wait(20)


def _clean() -> dict[str, str]:
    """The environment without site and paths of ours: what is installed there must do."""
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return clean | {"HF_HUB_OFFLINE": "1"}


def _run(python: Path, *words: object) -> str:
    command = [str(python), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, env=_clean())
    if done.returncode:
        raise AssertionError(done.stderr[-2000:])
    return done.stdout.splitlines()[-1] if words[0] == "-c" else done.stdout
