"""The folder where rlp is not installed: a bare environment, Hugging Face Optimum, OpenVINO.

Each environment is made from the registry, so `make elsewhere` runs these, and CI's suite does not;
one that cannot be had is skipped, and says so.
"""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deploy_folder import deployed, picture
from other_tools import NotToBeHad, by_openvino, by_optimum, by_predict_py, python_of, served
from PIL import Image

from stages.deploy import Classifier

pytestmark = pytest.mark.elsewhere


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return deployed(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 of several sizes, six of each class."""
    home = tmp_path_factory.mktemp("pictures")
    for i in range(24):
        Image.fromarray(picture(i % 4, 20 + i, 18 + 2 * i)).save(home / f"{i:02}.png")
    return home


@pytest.fixture(scope="module")
def wanted(folder: Path, pictures: Path) -> list[str]:
    classify = Classifier(folder)
    found = [classify(path)[0].label for path in sorted(pictures.iterdir())]
    assert len(set(found)) == 4
    return found


def interpreter(tool: str, below: Path) -> Path:
    try:
        return python_of(tool, below)
    except NotToBeHad as error:
        pytest.skip(f"NOT TESTED, {tool} cannot be installed: {error}")


def test_a_bare_environment_runs_the_script(
    folder: Path, pictures: Path, wanted: list[str], tmp_path: Path
) -> None:
    python = interpreter("predict.py", tmp_path)
    assert by_predict_py(python, folder, pictures) == wanted


def test_hugging_face_optimum_gives_the_same_labels(
    folder: Path, pictures: Path, wanted: list[str], tmp_path: Path
) -> None:
    python = interpreter("optimum", tmp_path)
    assert by_optimum(python, folder, pictures) == wanted


def test_openvinos_runtime_gives_the_same_labels(
    folder: Path, pictures: Path, wanted: list[str], tmp_path: Path
) -> None:
    python = interpreter("openvino", tmp_path)
    classify = Classifier(folder)
    pixels = np.stack([classify.pixels(path) for path in sorted(pictures.iterdir())])
    np.save(tmp_path / "pixels.npy", pixels)
    np.save(tmp_path / "tensors.npy", classify.preprocessing.normalise(pixels))
    files = ("model.onnx", "model_uint8.onnx")
    assert by_openvino(python, folder, tmp_path, files) == dict.fromkeys(files, wanted)


def test_the_example_server_answers(folder: Path, pictures: Path, wanted: list[str]) -> None:
    def asked(body: bytes) -> tuple[int, Any]:
        line = http.client.HTTPConnection("127.0.0.1", port)
        line.request("POST", "/predict?top=2", body=body)
        answer = line.getresponse()
        return answer.status, json.loads(answer.read())

    with served(interpreter("server", folder.parent), folder) as port:
        for path, label in zip(sorted(pictures.iterdir()), wanted, strict=True):
            status, said = asked(path.read_bytes())
            assert (status, len(said["labels"])) == (200, 2)
            assert said["labels"][0]["label"] == label
        assert asked(b"no picture") == (422, {"detail": "not a picture that can be read"})
        assert asked(b"")[0] == 422
        assert asked(bytes(33 << 20))[0] == 413
        assert asked(path.read_bytes())[0] == 200
