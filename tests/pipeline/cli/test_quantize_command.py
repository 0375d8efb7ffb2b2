"""`rlp quantize` on a file without a run: images, notes, the document, what is refused."""

from __future__ import annotations

from pathlib import Path

import fake_run
import numpy as np
import onnx
import pytest
from PIL import Image
from quantize_nets import images, made_up_clock, quadrants

from pipeline.errors import UsageError
from pipeline.run.store import sha256_file
from stages.quantize import outside

SIZE = 8


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A model, class folders of pictures, and a flat folder of them."""
    quadrants(tmp_path / "net.onnx")
    pixels = np.clip((images(80) + 1) * 80, 0, 255).astype(np.uint8)
    for index, picture in enumerate(pixels):
        folder = tmp_path / "classes" / "abcd"[index % 4]
        for place in (folder, tmp_path / "flat"):
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture[0]).save(place / f"{index}.png")
    return tmp_path


def test_the_int8_file_and_the_document(
    rlp: fake_run.Rlp, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_up_clock(monkeypatch)
    before = sha256_file(home / "net.onnx")
    rest = ("--mean", "0.3", "--std", "0.3", "--json")
    result = rlp("quantize", home / "net.onnx", "--calibration", home / "classes", *rest)
    assert result.code == 0, result.err
    document = result.json()
    assert document["chosen"] == "int8"
    assert document["accuracy"]["images"] == 16  # a fifth is held out
    assert document["accuracy"]["int8"] == document["accuracy"]["fp32"] == 1
    assert document["calibration"]["images"] == 64
    assert Path(document["out"]) == home / "net_int8.onnx"
    assert document["file"]["sha256"] == sha256_file(home / "net_int8.onnx")
    assert sha256_file(home / "net.onnx") == before
    again = rlp("quantize", home / "net_int8.onnx", "--calibration", home / "flat", "--json")
    assert again.code == 3
    assert "quantised already" in again.json()["error"]["message"]


def test_a_flat_folder_has_no_labels_and_a_search_folder_gives_them(home: Path) -> None:
    net = home / "net.onnx"
    found = outside.outside_images(net, home / "flat")
    assert found.search is None
    assert any("agreement" in note for note in found.notes)
    labelled = outside.outside_images(net, home / "flat", home / "classes")
    assert labelled.search is not None
    classes = np.concatenate([y for _, y in labelled.search.batches(64)])
    assert np.bincount(classes).tolist() == [20] * 4


def test_labels_follow_the_names_that_the_file_gives_its_classes(home: Path) -> None:
    proto = onnx.load(home / "net.onnx")
    proto.metadata_props[0].value = '["d", "c", "b", "a"]'
    (home / "named.onnx").write_bytes(proto.SerializeToString())
    found = [
        outside.outside_images(home / name, home / "classes", seed=1).search
        for name in ("net.onnx", "named.onnx")
    ]
    plain, named = (np.concatenate([y for _, y in one.batches(64)]) for one in found if one)
    assert (plain == 3 - named).all()


def test_images_are_normalised_as_the_file_says(home: Path) -> None:
    proto = onnx.load(home / "net.onnx")
    for key, value in (("mean", "[0.25]"), ("std", "[0.5]")):
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, value
    (home / "said.onnx").write_bytes(proto.SerializeToString())
    said = outside.outside_images(home / "said.onnx", home / "flat").calibration
    given = outside.outside_images(home / "net.onnx", home / "flat", mean=[0.25], std=[0.5])
    (a, _), (b, _) = (next(iter(one.batches(4))) for one in (said, given.calibration))
    assert (a == b).all()
    assert float(a.min()) >= -0.5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("-o", "net.onnx"), "is the model itself"),
        (("--mode", "fast"), "--mode fast"),
        (("--mean", "grey"), "expected numbers"),
    ],
)
def test_what_is_mistyped_is_a_usage_error(
    rlp: fake_run.Rlp,
    home: Path,
    words: tuple[str, str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(home)
    result = rlp("quantize", "net.onnx", "--calibration", "flat", *words)
    assert result.code == 2
    assert message in result.err


@pytest.mark.parametrize(
    "said",
    [
        "",
        "0.25",
        "0.25,0.5",
        "cat",
        "null",
        "{}",
        "[null]",
        '["x"]',
        "[NaN]",
        "[1e999]",
        "[" * 9**5,
    ],
    ids=lambda said: said[:9],
)
def test_metadata_of_anybody_mean_nothing_where_they_are_no_numbers(home: Path, said: str) -> None:
    proto = onnx.load(home / "net.onnx")
    proto.metadata_props[0].value = said
    for key in ("mean", "std"):
        proto.metadata_props.add(key=key, value=said)
    (home / "said.onnx").write_bytes(proto.SerializeToString())
    found = outside.outside_images(home / "said.onnx", home / "classes")
    assert found.notes[0].startswith("normalised as ImageNet's images are")
    assert found.search is not None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mean": [0.5]}, "does not say --std"),
        ({"std": [0.5]}, "does not say --mean"),
    ],
)
def test_one_of_mean_and_std_is_not_enough(
    home: Path, given: dict[str, list[float]], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        outside.outside_images(home / "net.onnx", home / "flat", **given)


def test_a_network_without_inputs_and_normalisation_of_other_channels_are_refused(
    home: Path,
) -> None:
    three = {"inputs": [{"shape": ["batch", 3, 8, 8]}], "outputs": [{"shape": []}], "metadata": {}}
    with pytest.raises(UsageError, match="takes 3 channels, normalised by 2"):
        outside._wanted(home / "net.onnx", three, None, [0.5, 0.5], [0.5, 0.5], [])
    with pytest.raises(UsageError, match="no batch of images"):
        outside._wanted(home / "net.onnx", {**three, "inputs": []}, None, None, None, [])
    images = outside.loose_images(home / "classes", outside.Wanted((1, 8, 8), (0.5,), (0.5,)), ())
    assert not outside._labelled(images, three)


def test_a_file_that_leaves_the_size_open_needs_it(home: Path) -> None:
    proto = onnx.load(home / "net.onnx")
    for dim in proto.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_param = "side"
    (home / "open.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(UsageError, match="leaves the size"):
        outside.outside_images(home / "open.onnx", home / "flat")
    found = outside.outside_images(home / "open.onnx", home / "flat", size=SIZE).calibration
    assert next(iter(found.batches(2)))[0].shape == (2, 1, SIZE, SIZE)
