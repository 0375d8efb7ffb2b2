"""The stage: every file of the folder, by what others do with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from deploy_folder import CLASSES, SIDE, context, deployed, picture, specification
from PIL import Image

import stages.deploy.stage as module
from pipeline.errors import Refused
from pipeline.run.artifacts import kinds_of
from pipeline.run.manifest import damaged_outputs, read_manifest, unlisted
from stages.deploy import Classifier
from stages.deploy.parity import pictures


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return deployed(tmp_path_factory.mktemp("run"), license="mit", data_license="cc0-1.0")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a network of either precision, of which INT8 was chosen."""
    return deployed(tmp_path_factory.mktemp("both"), int8=True)


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def answers(path: Path, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path.read_bytes())
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def notes(path: Path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


def test_every_file_is_of_a_kind_and_every_kind_is_there(folder: Path, both: Path) -> None:
    for home in (folder, both):
        manifest = read_manifest(home.parent, "deploy")
        assert manifest is not None
        assert damaged_outputs(home.parent, "deploy", manifest) == {}
        assert unlisted(home.parent, "deploy") == []
    needed = {name for kind in kinds_of("deploy") if not kind.optional for name in kind.files}
    assert {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    } == {
        *needed,
        "manifest.json",
    }


def test_a_file_that_nobody_knows_is_seen_however_deep(tmp_path: Path) -> None:
    home = deployed(tmp_path)
    (home / "triton" / "classifier" / "2").mkdir()
    (home / "triton" / "classifier" / "1" / "notes.txt").write_text("x")
    assert unlisted(tmp_path, "deploy") == ["triton/classifier/1/notes.txt", "triton/classifier/2"]


def test_a_link_on_the_way_to_a_file_is_damage(tmp_path: Path) -> None:
    home = deployed(tmp_path)
    (home / "triton").rename(tmp_path / "elsewhere")
    (home / "triton").symlink_to(tmp_path / "elsewhere")
    manifest = read_manifest(tmp_path, "deploy")
    assert manifest is not None
    assert "link" in damaged_outputs(tmp_path, "deploy", manifest)["changed"]


def test_the_chosen_network_is_delivered_under_names_that_loaders_know(both: Path) -> None:
    chosen = (both / "model.onnx").read_bytes()
    assert chosen == (both / "model_int8.onnx").read_bytes()
    assert chosen != (both / "model_fp32.onnx").read_bytes()
    for name in ("model.onnx", "model_fp32.onnx"):
        proto = onnx.load(both / name)
        onnx.checker.check_model(proto, full_check=True)
        assert [value.name for value in proto.graph.input] == ["pixel_values"]
        assert [value.name for value in proto.graph.output] == ["logits"]
    x = np.random.default_rng(0).standard_normal((3, 3, SIDE, SIDE)).astype(np.float32)
    measured = both.parent / "made" / "model_int8.onnx"
    assert np.array_equal(answers(both / "model.onnx", x), answers(measured, x))


def test_a_network_in_fp16_is_delivered_beside_the_one_in_fp32(tmp_path: Path) -> None:
    home = deployed(tmp_path, fp16=True)
    chosen = (home / "model.onnx").read_bytes()
    assert chosen == (home / "model_fp16.onnx").read_bytes()
    assert chosen != (home / "model_fp32.onnx").read_bytes()
    card = (home / "README.md").read_text(encoding="utf-8")
    assert "`model_fp16.onnx`" in card
    assert "`model_int8.onnx`" not in card
    pixels = pictures(specification())
    found = answers(home / "model_uint8.onnx", pixels)
    whole = Classifier(home, model="model_fp32.onnx").probabilities(list(pixels))
    assert 0 < np.abs(found - whole).max() < 1e-2


def test_what_the_files_say_about_themselves(folder: Path) -> None:
    said = notes(folder / "model.onnx")
    assert json.loads(said["classes"]) == list(CLASSES)
    assert said["names"] == repr(dict(enumerate(CLASSES)))
    assert json.loads(said["imgsz"]) == [SIDE, SIDE]
    assert (said["task"], said["license"]) == ("classify", "mit")
    assert said["weights_sha256"] == "0" * 64
    assert json.loads(said["preprocessing"]) == specification().to_dict()


def test_the_network_that_takes_pixels_gives_the_same_probabilities(folder: Path) -> None:
    spec, pixels = specification(), pictures(specification())
    classify = Classifier(folder)
    found = answers(folder / "model_uint8.onnx", pixels)
    assert pixels.dtype == np.uint8
    assert np.allclose(found, classify.probabilities(list(pixels)), atol=1e-6)
    assert np.allclose(found.sum(axis=1), 1)
    onnx.checker.check_model(onnx.load(folder / "model_uint8.onnx"), full_check=True)
    assert {node.domain for node in onnx.load(folder / "model_uint8.onnx").graph.node} == {""}
    assert spec.channels == pixels.shape[3]


def test_a_network_that_answers_otherwise_is_not_delivered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = module.taking_pixels

    def without_shift(proto: onnx.ModelProto, spec: Any) -> onnx.ModelProto:
        made = right(proto, spec)
        shift = next(t for t in made.graph.initializer if t.name.endswith("shift"))
        shift.raw_data = np.zeros(3, np.float32).tobytes()
        scale = next(t for t in made.graph.initializer if t.name.endswith("scale"))
        scale.raw_data = np.ones(3, np.float32).tobytes()
        return made

    monkeypatch.setattr(module, "taking_pixels", without_shift)
    ctx = context(tmp_path)
    with pytest.raises(Refused, match=r"model_uint8\.onnx and model\.onnx differ"):
        module.run(ctx)
    assert list(ctx.out.iterdir()) == []


@pytest.mark.parametrize("resize", ["crop", "squash"])
def test_hugging_face_reads_how_pictures_are_prepared(resize: str, tmp_path: Path) -> None:
    home = deployed(tmp_path, resize=resize)
    said = read(home / "preprocessor_config.json")
    sides = {"height": SIDE, "width": SIDE}
    if resize == "crop":
        assert said["image_processor_type"] == "BitImageProcessor"
        assert said["size"] == {"shortest_edge": SIDE}
        assert (said["do_center_crop"], said["crop_size"]) == (True, sides)
    else:
        assert said["image_processor_type"] == "ViTImageProcessor"
        assert said["size"] == sides
        assert "crop_size" not in said
    assert said["resample"] == 2  # Pillow's number of bilinear
    assert (said["image_mean"], said["image_std"]) == ([0.5, 0.4, 0.3], [0.25, 0.2, 0.3])
    labels = read(home / "config.json")["id2label"]
    assert labels == {str(index): name for index, name in enumerate(CLASSES)}


def test_hugging_faces_steps_give_nearly_the_tensors_of_training(folder: Path) -> None:
    """Its processor's steps in their own order, with their own numbers."""
    said = read(folder / "preprocessor_config.json")
    image = Image.fromarray(picture(1, 60, 40))
    short, long = sorted(image.size)
    edge = said["size"]["shortest_edge"]
    resized = image.resize((edge * long // short, edge), said["resample"])
    left = (resized.width - said["crop_size"]["width"]) // 2
    values = np.asarray(resized)[:, left : left + edge] * said["rescale_factor"]
    made = ((values - said["image_mean"]) / said["image_std"]).transpose(2, 0, 1)
    spec = specification()
    assert np.allclose(made, spec.normalise(spec.pixels(image)[None])[0], atol=1e-5)


def test_the_card_says_what_was_measured(folder: Path, both: Path) -> None:
    text = (folder / "README.md").read_text(encoding="utf-8")
    for said in ("91.25%", "1.62 (1.50 … 1.75), faster", "Some CPU", "8 test images", "cc0-1.0"):
        assert said in text
    assert text.startswith("---\nlibrary_name: onnx\n")
    assert "license: mit\n" in text
    assert "model_int8.onnx" not in text
    card = (both / "README.md").read_text(encoding="utf-8")
    assert "model_int8.onnx" in card
    assert "INT8: 1.70 times as fast" in card
    assert "Network: not stated" in card
