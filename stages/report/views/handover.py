"""The folder to hand over: how it is used, and what lies in it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from pipeline.errors import Command
from pipeline.run.artifacts import KINDS
from pipeline.words import size
from stages.report.documents import Document

_FOLDER = KINDS["deployed"].maker


def use_snippets(run: str) -> list[tuple[str, str]]:
    """What each is for, and the lines to paste.

    Args:
        run: the run's folder, as commands name it.
    """
    folder = f"{run}/{_FOLDER}"
    alone = shlex.join(["python", f"{folder}/predict.py", "photo.jpg"])
    return [
        ("On this machine", str(Command("predict", folder, "photo.jpg"))),
        ("Anywhere with onnxruntime, numpy and pillow", alone),
        (
            "In your own Python, from a copy of the folder",
            'from predict import Classifier\n\nClassifier()("photo.jpg")[0].label',
        ),
    ]


def deploy_rows(manifests: Mapping[str, Document]) -> list[dict[str, str]]:
    """Files of the folder with their sizes and what they are; empty where it was not written."""
    meanings = {
        name: kind.meaning
        for kind in KINDS.values()
        if kind.maker == _FOLDER
        for name in kind.files
    }
    outputs = manifests.get(_FOLDER, {}).get("outputs", {})
    return [
        {"file": name, "size": size(entry["bytes"]), "what": meanings.get(name, "")}
        for name, entry in outputs.items()
    ]
