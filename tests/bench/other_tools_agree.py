"""Top-1 of a finished run's deploy folder by other tools, against `Classifier`'s, on test images.

    python tests/bench/other_tools_agree.py RUN [--images 500]

predict.py in a bare environment, Hugging Face Optimum with its own preparation of pictures, and
OpenVINO's runtime, each in an environment of its own below $RLP_ENVIRONMENTS, made from the
registry where it is not there (`tests/other_tools.py`).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

import numpy as np  # noqa: E402
import onnxruntime  # noqa: E402
from other_tools import NotToBeHad, by_openvino, by_optimum, by_predict_py, python_of  # noqa: E402
from PIL import Image  # noqa: E402

from pipeline.data.load import load_test  # noqa: E402
from pipeline.run.runner import read_run  # noqa: E402
from stages.deploy import Classifier  # noqa: E402


def save_pictures(run: Path, home: Path, count: int) -> list[str]:
    """The first test images of the run as PNG files; their classes."""
    images = load_test(read_run(run)[0].data)
    std, mean = np.array(images.std), np.array(images.mean)
    labels: list[str] = []
    for x, y in images.batches(100):
        values = x.permute(0, 2, 3, 1).numpy() * std + mean
        for pixels, label in zip(np.rint(255 * values).astype(np.uint8), y.tolist(), strict=True):
            if len(labels) == count:
                return labels
            plain = pixels[..., 0] if pixels.shape[2] == 1 else pixels
            Image.fromarray(plain).save(home / f"{len(labels):05}.png")
            labels.append(images.classes[label])
    return labels


def compared(name: str, found: Sequence[str], wanted: Sequence[str], labels: Sequence[str]) -> None:
    same = sum(a == b for a, b in zip(found, wanted, strict=True))
    right = sum(a == b for a, b in zip(found, labels, strict=True))
    print(f"{name:<28} same top-1 {same}/{len(wanted)}, accuracy {right / len(labels):.2%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--images", type=int, default=500)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        (home / "pictures").mkdir()
        labels = save_pictures(given.run, home / "pictures", given.images)
        deploy = given.run / "deploy"
        classify = Classifier(given.run)
        pixels = [classify.pixels(path) for path in sorted((home / "pictures").iterdir())]
        np.save(home / "pixels.npy", np.stack(pixels))
        np.save(home / "tensors.npy", classify.preprocessing.normalise(np.stack(pixels)))
        wanted = answers(classify, pixels)
        compared("Classifier", wanted, wanted, labels)
        compared("model_uint8.onnx", from_pixels(deploy, classify.labels, pixels), wanted, labels)
        for tool, answer in (("predict.py", by_predict_py), ("optimum", by_optimum)):
            with said(tool):
                found = answer(python_of(tool, home), deploy, home / "pictures")
                compared(tool, found, wanted, labels)
        files = ["model.onnx", "model_uint8.onnx", "model_fp32.onnx"]
        with said("openvino"):
            there = [name for name in files if (deploy / name).is_file()]
            given_by = by_openvino(python_of("openvino", home), deploy, home, there)
            for name, found in given_by.items():
                other = "model.onnx" if name == "model_uint8.onnx" else name
                own = answers(Classifier(given.run, model=other), pixels)
                compared(f"openvino, {name}", found, own, labels)


def from_pixels(deploy: Path, names: Sequence[str], pixels: Sequence[np.ndarray]) -> list[str]:
    """By onnxruntime on the file that takes pixels (N, H, W, C) as they are."""
    session = onnxruntime.InferenceSession(deploy / "model_uint8.onnx")
    name = session.get_inputs()[0].name
    given = (session.run(None, {name: one[None]})[0] for one in pixels)
    return [names[int(probabilities.argmax())] for probabilities in given]


def answers(classify: Classifier, pixels: Sequence[np.ndarray]) -> list[str]:
    """One picture a call, as the others do."""
    return [classify.labels[int(classify.probabilities([one]).argmax())] for one in pixels]


@contextmanager
def said(tool: str) -> Iterator[None]:
    try:
        yield
    except (NotToBeHad, AssertionError) as error:
        print(f"{tool:<28} NOT TESTED: {str(error).strip().splitlines()[-1]}")


if __name__ == "__main__":
    main()
