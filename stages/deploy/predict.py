"""Say what is on pictures, with the network in this folder.

    python predict.py photo.jpg more/ 'holiday/*.png'      ranked labels
    cat photo.jpg | python predict.py - --json             one JSON document

It needs onnxruntime, numpy and pillow, and nothing else. As a library:

    from predict import Classifier
    Classifier()("photo.jpg")[0]        # Label(label='cat', probability=0.93, index=3)
"""

from __future__ import annotations

import argparse
import glob
import hashlib
import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
from PIL import Image, UnidentifiedImageError

from pipeline.preprocessing import UNREADABLE, Preprocessing

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff", ".gif")
STDIN = "-"
_BATCH = 32
_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Label:
    """One answer: a class, how probable it is, and its index."""

    label: str
    probability: float
    index: int


class Answer(NamedTuple):
    """What was found on one picture, the most probable first; or why it could not be read."""

    image: str
    labels: list[Label]
    problem: str = ""


class DamagedFolder(Exception):
    """This is no deploy folder, or not as it was written."""


class Classifier:
    """The network of a deploy folder, whose files are compared with its manifest first.

    Args:
        folder: with manifest.json and the network.
        model: the file to load; `model_int8.onnx`, say.
        provider: onnxruntime's name of an execution provider.
        threads: of one call; 0: as many as onnxruntime thinks best.
    Raises:
        DamagedFolder: a file is missing, or other than when it was written.
    """

    def __init__(
        self,
        folder: str | Path = Path(__file__).parent,
        *,
        model: str = "model.onnx",
        provider: str = "CPUExecutionProvider",
        threads: int = 0,
    ) -> None:
        self.folder = Path(folder)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        chain = list(dict.fromkeys((provider, "CPUExecutionProvider")))
        data = verified(self.folder, model)  # what was hashed is what is loaded
        self.session = onnxruntime.InferenceSession(data, options, providers=chain)
        notes = self.session.get_modelmeta().custom_metadata_map
        try:
            self.preprocessing = Preprocessing.from_dict(json.loads(notes["preprocessing"]))
            self.labels: list[str] = json.loads(notes["classes"])
        except (KeyError, ValueError, TypeError) as error:
            what = f"{self.folder / model}: does not say how pictures are prepared ({error!r})"
            raise DamagedFolder(what) from None

    def __call__(self, picture: Any, top: int = 5) -> list[Label]:
        """The most probable classes of one picture.

        Args:
            picture: a path, the bytes of a file, an opened Pillow image, or an array (H, W),
                (H, W, 1) or (H, W, 3) of uint8.
        Raises:
            OSError, ValueError, SyntaxError, …: it cannot be read; one of UNREADABLE.
        """
        return self.ranked(self.probabilities([self.pixels(picture)])[0], top)

    def pixels(self, picture: Any) -> np.ndarray:
        """(height, width, channels) uint8, as the network's preprocessing wants them."""
        if isinstance(picture, (str, Path)):
            picture = Path(picture).read_bytes()
        if isinstance(picture, np.ndarray):
            picture = _from_array(picture)
        return self.preprocessing.pixels(picture)

    def probabilities(self, pixels: Sequence[np.ndarray]) -> np.ndarray:
        """(N, classes) float64 that add up to 1, of N arrays from `pixels`."""
        x = self.preprocessing.normalise(np.stack(pixels))
        found = self.session.run(None, {self.session.get_inputs()[0].name: x})[0]
        return softmax(found)

    def ranked(self, probabilities: np.ndarray, top: int) -> list[Label]:
        """The `top` classes of (classes,) probabilities."""
        order = np.argsort(-probabilities, kind="stable")[:top]
        return [Label(self.labels[i], float(probabilities[i]), int(i)) for i in order]

    def answers(self, names: Iterable[str], top: int = 5, batch: int = _BATCH) -> Iterator[Answer]:
        """An answer for every name, in their order; one that cannot be read spoils no other.

        Args:
            names: of files, or `-` for standard input.
            batch: pictures a call of the network.
        """
        waiting: list[tuple[str, np.ndarray | None, str]] = []
        for name in names:
            waiting.append((name, *self._read(name)))
            if len(waiting) == batch:
                yield from self._answered(waiting, top)
                waiting = []
        yield from self._answered(waiting, top)

    def _read(self, name: str) -> tuple[np.ndarray | None, str]:
        try:
            raw = sys.stdin.buffer.read() if name == STDIN else Path(name).read_bytes()
            return self.pixels(raw), ""
        except (*UNREADABLE, MemoryError) as error:
            return None, why_unreadable(error)

    def _answered(
        self, waiting: list[tuple[str, np.ndarray | None, str]], top: int
    ) -> Iterator[Answer]:
        good = [pixels for _, pixels, _ in waiting if pixels is not None]
        rows = iter(self.probabilities(good) if good else ())
        for name, pixels, problem in waiting:
            found = [] if pixels is None else self.ranked(next(rows), top)
            yield Answer(name, found, problem)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Of (N, classes), in float64."""
    scores = logits.astype(np.float64)
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def verified(folder: Path, model: str) -> bytes:
    """The bytes of `model`, once every file of the folder that is there was found as it was
    written; files may be left out, the network may not.

    Raises:
        DamagedFolder: naming the first file that is not.
    """
    known = _manifest(folder)
    if model not in known:
        networks = ", ".join(name for name in sorted(known) if name.endswith(".onnx"))
        raise DamagedFolder(f"{folder}: has no {model}; it has {networks or 'no network'}")
    for name in sorted(known):
        path = folder / name
        if name != model and path.is_file() and _sha256(path) != known[name]:
            raise DamagedFolder(f"{path}: is not the file that was written (sha256 mismatch)")
    try:
        data = (folder / model).read_bytes()
    except OSError as error:
        raise DamagedFolder(f"{folder / model}: {error.strerror}") from None
    if hashlib.sha256(data).hexdigest() != known[model]:
        raise DamagedFolder(f"{folder / model}: is not the file that was written (sha256 mismatch)")
    return data


def _manifest(folder: Path) -> dict[str, str]:
    """sha256 of every file by its name, as the manifest, which is sealed by its own, has them."""
    path = folder / _MANIFEST
    try:
        found = json.loads(path.read_bytes())
        seal = found.pop("seal")
        text = json.dumps(found, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        known = {str(name): str(entry["sha256"]) for name, entry in found["outputs"].items()}
        stage = found["stage"]
    except OSError as error:
        raise DamagedFolder(f"{path}: {error.strerror}; not a deploy folder") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise DamagedFolder(f"{path}: not the manifest of a deploy folder") from None
    if stage != "deploy":
        raise DamagedFolder(f"{folder}: the folder of stage {stage}, not a deploy folder")
    if hashlib.sha256(text.encode()).hexdigest() != seal:
        raise DamagedFolder(f"{path}: changed since it was written (seal broken)")
    return known


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _from_array(array: np.ndarray) -> Image.Image:
    shape = array.shape[:2] if array.ndim == 3 and array.shape[2] == 1 else array.shape
    if array.dtype != np.uint8 or len(shape) not in (2, 3) or shape[2:] not in ((), (3,)):
        what = f"{array.dtype} {array.shape}"
        raise ValueError(f"an array must be uint8 (H, W), (H, W, 1) or (H, W, 3), not {what}")
    return Image.fromarray(np.ascontiguousarray(array.reshape(shape)))


def why_unreadable(error: BaseException) -> str:
    """In a few words, on one line."""
    if isinstance(error, UnidentifiedImageError):
        return "not a picture that can be read"
    if isinstance(error, Image.DecompressionBombError | MemoryError):
        return "more pixels than are safe to decode"
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(f"cannot be read: {said}".split())


def pictures(names: Iterable[str]) -> list[str]:
    """Files by their names: those of a folder, however deep; those that match `*`; `-` as it is.

    A name that stands for nothing stays, and is answered like any file that is not there.
    """
    found: list[str] = []
    for name in names:
        path = Path(name)
        if name != STDIN and path.is_dir():
            found += sorted(str(file) for file in path.rglob("*") if _is_picture(file))
        elif name != STDIN and not path.exists() and glob.has_magic(name):
            found += sorted(glob.glob(name, recursive=True)) or [name]
        else:
            found.append(name)
    return found


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _shown(text: str) -> str:
    """Names are anybody's, and some would steer a terminal: such characters are shown instead."""
    steering = r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]"
    return re.sub(steering, lambda found: ascii(found[0])[1:-1], text)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0, or 3 where a picture or this folder could not be read."""
    parser = argparse.ArgumentParser(description="Say what is on pictures.")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="file, folder, pattern, or -")
    parser.add_argument("--top", type=int, default=5, help="how many labels, 5 if not given")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--model", default="model.onnx", help="a file of this folder")
    parser.add_argument("--provider", default="CPUExecutionProvider", help="onnxruntime's name")
    given = parser.parse_args(arguments)
    try:
        classifier = Classifier(model=given.model, provider=given.provider)
    except DamagedFolder as error:
        sys.stderr.write(f"error: {_shown(str(error))}\n")
        return 3
    names = pictures(given.images)
    found = list(classifier.answers(names, max(1, given.top)))
    if given.json:
        rows = [{**a._asdict(), "labels": [asdict(label) for label in a.labels]} for a in found]
        sys.stdout.write(json.dumps({"images": rows}, indent=2) + "\n")
    for answer in found:
        if answer.problem:
            sys.stderr.write(_shown(f"error: {answer.image}: {answer.problem}") + "\n")
        elif not given.json:
            ranked = ", ".join(f"{one.label} {one.probability:.1%}" for one in answer.labels)
            sys.stdout.write(_shown(f"{answer.image}: {ranked}") + "\n")
    if not names:
        sys.stderr.write(_shown(f"error: {' '.join(given.images)}: no pictures there") + "\n")
    return 0 if names and not any(answer.problem for answer in found) else 3


if __name__ == "__main__":
    sys.exit(main())
