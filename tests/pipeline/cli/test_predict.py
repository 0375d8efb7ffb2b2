"""`rlp predict`: answers for all that can be read, one line for each that cannot."""

from __future__ import annotations

import io
import subprocess
import sys
import zlib
from pathlib import Path

import fake_run
import numpy as np
import pytest
from deploy_folder import CLASSES, deployed, picture
from failures import assert_failure
from PIL import Image


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return deployed(tmp_path_factory.mktemp("run"))


@pytest.fixture
def photos(here: Path) -> Path:
    """A folder a class, with a picture each."""
    for corner, name in enumerate(CLASSES[:3]):
        (here / "photos" / name).mkdir(parents=True)
        Image.fromarray(picture(corner)).save(here / "photos" / name / "one.png")
    return here / "photos"


def test_files_folders_and_patterns(rlp: fake_run.Rlp, folder: Path, photos: Path) -> None:
    one = str(photos / CLASSES[1] / "one.png")
    result = rlp("predict", str(folder), one, str(photos), f"{photos}/bottom*/*.png", "--json")
    assert result.code == 0
    document = result.json()
    assert set(document) >= {"deploy", "model", "provider", "images", "accuracy"}
    named = [row["labels"][0]["label"] for row in document["images"]]
    assert named == [CLASSES[1], *sorted(CLASSES[:3]), CLASSES[2]]
    assert [row["problem"] for row in document["images"]] == [None] * 5
    assert document["accuracy"] is None
    first = document["images"][0]["labels"]
    assert len(first) == 4
    assert first[0]["index"] == 1
    assert [row["probability"] for row in first] == sorted(
        (row["probability"] for row in first), reverse=True
    )


def test_for_people(rlp: fake_run.Rlp, folder: Path, photos: Path) -> None:
    result = rlp("predict", str(folder), str(photos), "--top", "1", "--batch", "2")
    assert result.code == 0
    assert result.err == ""
    lines = result.out.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith(f"{photos}/bottom left/one.png: bottom left ")
    assert lines[0].endswith("%")


def test_batches_change_no_answer(rlp: fake_run.Rlp, folder: Path, photos: Path) -> None:
    one, three = (
        rlp("predict", str(folder), str(photos), "--batch", size, "--json").json()["images"]
        for size in ("1", "3")
    )
    for row, other in zip(one, three, strict=True):
        assert [x["label"] for x in row["labels"]] == [x["label"] for x in other["labels"]]
        probabilities = ([x["probability"] for x in r["labels"]] for r in (row, other))
        assert np.allclose(*probabilities, atol=1e-6)


def test_labels_from_folders_give_the_accuracy(
    rlp: fake_run.Rlp, folder: Path, photos: Path
) -> None:
    Image.fromarray(picture(3)).save(photos / CLASSES[0] / "wrong.png")
    result = rlp("predict", str(folder), str(photos), "--labels-from-folders", "--json")
    assert result.code == 0
    document = result.json()
    assert document["accuracy"] == {"accuracy": 0.75, "right": 3, "images": 4}
    assert document["images"][0]["given"] == "bottom left"
    slashed = photos / CLASSES[3].replace("/", "-")
    slashed.mkdir()
    Image.fromarray(picture(3)).save(slashed / "one.png")
    result = rlp("predict", str(folder), str(slashed), "--labels-from-folders", "--json")
    assert result.code == 0
    assert result.json()["images"][0]["given"] == CLASSES[3]
    (photos / "cats").mkdir()
    Image.fromarray(picture(3)).save(photos / "cats" / "one.png")
    result = rlp("predict", str(folder), str(photos), "--labels-from-folders", "--json")
    assert_failure(result, 3)
    assert "folder 'cats' is no label" in result.err
    assert result.json()["accuracy"]["images"] == 5


def header_only(width: int, height: int) -> bytes:
    """A PNG that claims this size, and holds next to nothing."""
    stream = io.BytesIO()
    Image.new("L", (1, 1)).save(stream, "PNG")
    raw = bytearray(stream.getvalue())
    raw[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    raw[29:33] = zlib.crc32(bytes(raw[12:29])).to_bytes(4, "big")
    return bytes(raw)


def test_bad_pictures_cost_a_line_each_and_spoil_no_other(
    rlp: fake_run.Rlp, folder: Path, photos: Path
) -> None:
    good = (photos / CLASSES[0] / "one.png").read_bytes()
    bad = {
        "text.png": b"no picture at all",
        "empty.png": b"",
        "cut.png": good[: len(good) // 2],
        "huge.png": header_only(50_000, 50_000),
    }
    for name, data in bad.items():
        (photos / name).write_bytes(data)
    names = [str(photos / name) for name in bad]
    fine = str(photos / CLASSES[0] / "one.png")
    asked = (fine, *names, "no-such.png", str(photos / CLASSES[1] / "one.png"))
    result = rlp("predict", str(folder), *asked, "--json")
    assert_failure(result, 3)
    rows = result.json()["images"]
    assert [row["image"] for row in rows] == list(asked)
    assert [bool(row["labels"]) for row in rows] == [True, *[False] * 5, True]
    errors = result.lines("error")
    assert len(errors) == 5
    for name, line in zip([*names, "no-such.png"], errors, strict=True):
        assert line.startswith(f"error: {name}: ")
    assert "more pixels than are safe" in errors[3]
    assert "No such file" in errors[4]


def test_nothing_to_look_at(rlp: fake_run.Rlp, folder: Path, here: Path) -> None:
    (here / "empty").mkdir()
    result = rlp("predict", str(folder), "empty", "--json")
    assert_failure(result, 3)
    assert result.json()["images"] == []
    assert "no pictures there" in result.err
    assert_failure(rlp("predict", str(folder), "*.png", "--json"), 3)
    assert_failure(rlp("predict", str(folder), "--json"), 2)


def test_a_folder_that_was_tampered_with_is_not_loaded(
    rlp: fake_run.Rlp, photos: Path, tmp_path: Path
) -> None:
    home = deployed(tmp_path / "own")
    with (home / "model.onnx").open("r+b") as file:
        file.seek(100)
        file.write(b"\0\1\2")
    result = rlp("predict", str(home), str(photos), "--json")
    assert_failure(result, 3)
    assert "model.onnx: is not the file that was written" in result.err
    assert result.json()["images"] is None


def test_standard_input_without_torch(folder: Path, photos: Path) -> None:
    """In a process of its own, as a shell pipes it."""
    code = (
        "import sys\n"
        "from pipeline.cli import main\n"
        f"try: main(['predict', {str(folder)!r}, '-', '--top', '1'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "print([n for n in ('torch', 'onnx', 'scipy') if n in sys.modules])"
    )
    raw = (photos / CLASSES[2] / "one.png").read_bytes()
    done = subprocess.run(
        [sys.executable, "-c", code], input=raw, capture_output=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    answer, heavy = done.stdout.decode().splitlines()
    assert answer.startswith("-: bottom left ")
    assert heavy == "[]"
