"""`rlp predict DEPLOY IMAGE...`: ranked labels of pictures, without torch."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline import console
from pipeline.cli.common import attach, command

if TYPE_CHECKING:
    from stages.deploy import Answer

_KEYS = ("deploy", "model", "provider", "images", "accuracy")


def register(app: typer.Typer) -> None:
    command(app, "predict", keys=_KEYS)(predict)


_Deploy = Annotated[
    Path, typer.Argument(metavar="DEPLOY", help="A deploy folder, or a run that has one.")
]
_Images = Annotated[
    list[str],
    typer.Argument(
        metavar="IMAGE...", help="Files, folders, patterns, or - for a picture on standard input."
    ),
]
_Top = Annotated[int, typer.Option("--top", min=1, help="How many labels a picture.")]
_Batch = Annotated[int, typer.Option("--batch", min=1, max=4096, help="Pictures a call.")]
_Provider = Annotated[
    str, typer.Option("--provider", help="Execution provider: cpu, cuda, openvino, …")
]
_Model = Annotated[
    str, typer.Option("--model", metavar="FILE", help="Another network of the folder.")
]
_FromFolders = Annotated[
    bool,
    typer.Option(
        "--labels-from-folders",
        help="Take the name of each picture's folder as its label, and report the accuracy.",
    ),
]


def predict(
    deploy: _Deploy,
    images: _Images,
    top: _Top = 5,
    batch: _Batch = 32,
    provider: _Provider = "cpu",
    model: _Model = "model.onnx",
    labels_from_folders: _FromFolders = False,
) -> dict[str, Any]:
    """Say what is on pictures: their most probable labels, by the network in DEPLOY.

    The folder's hashes are verified first. A picture that cannot be read costs one line and exit
    code 3; all others are answered.
    """
    from pipeline.errors import ArtifactError, Hint
    from stages.deploy import Classifier
    from stages.deploy.predict import pictures

    warnings.simplefilter("ignore")  # Pillow's, on large or odd pictures that it reads all the same
    classifier = Classifier(deploy, model=model, provider=provider)
    names = pictures(images)
    doc: dict[str, Any] = {"deploy": str(classifier.folder), "model": model}
    doc |= {"provider": classifier.session.get_providers()[0], "images": [], "accuracy": None}
    if not names:
        what = f"{' '.join(images)}: no pictures there"
        hint = Hint.command("predict", str(deploy), "IMAGE", says="takes files, folders, patterns")
        raise attach(ArtifactError(what, hint=hint), doc)
    given = _Given(labels_from_folders, classifier.labels)
    problems = []
    for answer in classifier.answers(names, top, batch):
        row, problem = given.row(answer)
        doc["images"].append(row)
        if problem:
            problems.append(f"{answer.image}: {problem}")
        elif answer.labels:
            console.say(_line(answer))
    doc["accuracy"] = given.accuracy()
    if doc["accuracy"]:
        console.say("accuracy {accuracy:.2%}: {right:,} of {images:,}".format(**doc["accuracy"]))
    if problems:
        hint = Hint("look at the files named; all other pictures were answered")
        raise attach(ArtifactError(problems[0], hint=hint, details=problems[1:]), doc)
    return doc


class _Given:
    """Labels that the pictures' folders give, where they are asked for."""

    def __init__(self, wanted: bool, labels: Sequence[str]) -> None:
        self._wanted = wanted
        # no folder can be called T-shirt/top
        written = ((label.replace("/", mark), label) for mark in "-_" for label in labels)
        self._labels = dict(written) | {label: label for label in labels}
        self._right = self._count = 0

    def row(self, answer: Answer) -> tuple[dict[str, Any], str]:
        """An answer as JSON, and what is wrong with it."""
        ranked = [asdict(label) for label in answer.labels]
        row: dict[str, Any] = {"image": answer.image, "labels": ranked}
        problem = answer.problem
        if self._wanted:
            folder = Path(answer.image).resolve().parent.name
            row["given"] = self._labels.get(folder, folder)
            if not problem and folder not in self._labels:
                problem = f"its folder {folder!r} is no label of this network"
            elif not problem:
                self._count += 1
                self._right += answer.labels[0].label == row["given"]
        row["problem"] = problem or None
        return row, problem

    def accuracy(self) -> dict[str, Any] | None:
        """Over the pictures whose label is known; None where there are none."""
        if not self._count:
            return None
        share = self._right / self._count
        return {"accuracy": share, "right": self._right, "images": self._count}


def _line(answer: Answer) -> str:
    ranked = ", ".join(f"{one.label} {one.probability:.1%}" for one in answer.labels)
    return f"{answer.image}: {ranked}"
