"""`Classifier` and the folder's own predict.py: the same answers, and nothing that is damaged."""

from __future__ import annotations

import importlib.util
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnxruntime
import PIL
import pytest
from awkward_images import awkward
from deploy_folder import CLASSES, deployed, picture, specification
from PIL import Image

from pipeline import preprocessing
from pipeline.errors import ArtifactError, EnvironmentProblem, UsageError
from stages.deploy import Classifier
from stages.deploy import predict as source
from stages.deploy.formats.script import body, script


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return deployed(tmp_path_factory.mktemp("run"), int8=True)


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "handed over"))


@pytest.fixture(scope="module")
def handed_over(folder: Path) -> ModuleType:
    """The folder's predict.py, as a user imports it."""
    found = importlib.util.spec_from_file_location("handed_over", folder / "predict.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules["handed_over"] = module
    found.loader.exec_module(module)
    return module


def png(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


def test_a_picture_in_any_form_gets_the_same_answer(folder: Path, tmp_path: Path) -> None:
    classify, array = Classifier(folder), picture(2)
    (tmp_path / "p.png").write_bytes(png(array))
    wanted = classify(array, top=2)
    assert wanted[0].label == "bottom left"
    assert sum(label.probability for label in classify(array, top=4)) == pytest.approx(1)
    assert len(wanted) == 2
    path = tmp_path / "p.png"
    for given in (path, str(path), path.read_bytes(), Image.fromarray(array)):
        assert classify(given, top=2) == wanted


def test_grey_arrays_are_shown_in_colour_and_others_refused(folder: Path) -> None:
    classify, grey = Classifier(folder), picture(1)[..., 0]
    assert classify(grey)[0].index == classify(grey[..., None])[0].index == 1
    for wrong in (grey.astype(np.float32), np.zeros((4, 4, 4), np.uint8), np.zeros(4, np.uint8)):
        with pytest.raises(ValueError, match="an array must be uint8"):
            classify(wrong)


def test_the_script_is_the_source_word_for_word() -> None:
    text = script()
    for module in (preprocessing, source):
        written = Path(module.__file__).read_text("utf-8")
        assert body(written) in text
        assert len(body(written).splitlines()) > 60
    assert "from pipeline" not in text
    assert "import stages" not in text


def test_the_script_makes_the_tensors_of_training(handed_over: ModuleType) -> None:
    """Those that tests/pipeline/test_preprocessing.py finds equal to training's, to the bit."""
    mine, theirs = specification(), handed_over.Preprocessing(**specification().__dict__)
    assert type(theirs) is not type(mine)
    for name, raw in awkward().items():
        wanted = mine.normalise(mine.pixels(raw)[None])
        assert np.array_equal(theirs.normalise(theirs.pixels(raw)[None]), wanted), name


def test_the_script_runs_where_neither_rlp_nor_torch_can_be_imported(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(png(picture(3)))
    (tmp_path / "not.png").write_text("no picture")
    outside = tmp_path / "site"
    outside.mkdir()
    for module in (np, PIL, onnxruntime):
        home = Path(module.__file__).parent
        for found in (home, home.with_name(f"{home.name}.libs")):
            if found.exists():
                (outside / found.name).symlink_to(found)
    code = (
        "import sys, runpy\n"
        f"sys.path.insert(0, {str(outside)!r})\n"
        "sys.argv = sys.argv[1:]\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as end: code = end.code\n"
        "seen = {'torch', 'pipeline', 'stages', 'onnx', 'typer'} & set(sys.modules)\n"
        "assert not seen, seen\n"
        "sys.exit(code)"
    )
    names = [str(tmp_path / name) for name in ("a.png", "not.png")]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(folder / "predict.py"), *names, "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    first, second = json.loads(done.stdout)["images"]
    assert first["labels"][0]["label"] == CLASSES[3]
    assert second["labels"] == []
    assert "not.png: not a picture that can be read" in done.stderr
    again = Classifier(folder)(picture(3))
    assert [row["probability"] for row in first["labels"]] == [row.probability for row in again]


def test_another_network_of_the_folder(folder: Path) -> None:
    sure = Classifier(folder)(picture(0))[0].probability
    less = Classifier(folder, model="model_fp32.onnx")(picture(0))[0].probability
    assert less < sure
    with pytest.raises(ArtifactError, match=r"has no model_fp16\.onnx; it has .*model_fp32\.onnx"):
        Classifier(folder, model="model_fp16.onnx")


def test_every_file_is_verified_first(copy: Path) -> None:
    files = [path for path in copy.rglob("*") if path.is_file()]
    assert len(files) > 10
    for path in files:
        original = path.read_bytes()
        middle = len(original) // 2
        path.write_bytes(original[:middle] + bytes([original[middle] ^ 1]) + original[middle + 1 :])
        with pytest.raises(ArtifactError, match=path.name):
            Classifier(copy)
        path.write_bytes(original)
    assert Classifier(copy)(picture(0))


def test_files_that_a_user_needs_not_may_go(copy: Path) -> None:
    shutil.rmtree(copy / "triton")
    (copy / "config.json").unlink()
    assert Classifier(copy)(picture(0))
    (copy / "model.onnx").unlink()
    with pytest.raises(ArtifactError, match=r"model\.onnx: No such file"):
        Classifier(copy)


def test_other_folders_are_refused_in_a_sentence(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match="not a deploy folder"):
        Classifier(tmp_path / "empty")
    with pytest.raises(ArtifactError, match="no such folder"):
        Classifier(tmp_path / "nowhere")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    with pytest.raises(ArtifactError, match="a run without a deploy folder"):
        Classifier(tmp_path / "run")
    for text in ("[]", "{", "null", "[" * 100_000, '{"seal": 1, "outputs": {}, "stage": 3}'):
        (copy / "manifest.json").write_text(text)
        with pytest.raises(ArtifactError, match=r"manifest\.json|stage 3"):
            Classifier(copy)


def test_a_run_stands_for_its_deploy_folder(copy: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text("{}")
    copy.rename(run / "deploy")
    assert Classifier(run).folder == run / "deploy"


def test_a_network_that_says_nothing_of_its_pictures(copy: Path) -> None:
    """Whole by its hashes, and yet of no use."""
    proto = onnx.load(copy / "model.onnx")
    del proto.metadata_props[:]
    data = proto.SerializeToString()
    (copy / "model.onnx").write_bytes(data)
    manifest = json.loads((copy / "manifest.json").read_text())
    del manifest["seal"]
    from pipeline.run.artifacts import MANIFEST
    from pipeline.run.store import sha256_file

    manifest["outputs"]["model.onnx"]["sha256"] = sha256_file(copy / "model.onnx")
    MANIFEST.write(copy / "manifest.json", MANIFEST.body(manifest))
    with pytest.raises(ArtifactError, match="does not say how pictures are prepared"):
        Classifier(copy)


def test_providers_by_name(folder: Path) -> None:
    with pytest.raises(UsageError, match="unknown execution provider"):
        Classifier(folder, provider="abacus")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        with pytest.raises(EnvironmentProblem, match="has no CUDAExecutionProvider"):
            Classifier(folder, provider="cuda")


def test_importing_it_brings_neither_torch_nor_onnx() -> None:
    code = (
        "import sys, stages.deploy\n"
        "print([n for n in ('torch', 'onnx', 'pydantic', 'typer') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "[]"
