"""One specification: what training sees of a picture, and what any deployment makes of it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from awkward_images import awkward, encoded, rgb
from PIL import Image

from pipeline.config.data import DataConfig
from pipeline.data import DataCard, Images, describe, load_test
from pipeline.data.content import Encoded
from pipeline.data.decode import decode_all
from pipeline.preprocessing import CROP, SQUASH, Fit, Preprocessing, decode, upright_size

AWKWARD = awkward()
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def specification(channels: int, resize: str) -> Preprocessing:
    return Preprocessing(16, 16, channels, MEAN[:channels], STD[:channels], resize)


def as_trained(files: list[bytes], spec: Preprocessing) -> torch.Tensor:
    """Decoded, kept and normalised as the pipeline does it for training."""
    images = Encoded(files.__getitem__, np.zeros(len(files), np.int64), str)
    fit = Fit(spec.height, spec.width, spec.resize)
    pixels, good = decode_all(images, grey=spec.channels == 1, shape=(16, 16), fit=fit)
    assert good.tolist() == list(range(len(files)))
    labels = torch.zeros(len(files), dtype=torch.int64)
    kept = Images(torch.from_numpy(pixels), labels, ("any",), spec.mean, spec.std)
    return next(kept.batches(len(files)))[0]


@pytest.mark.parametrize("resize", [CROP, SQUASH])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_deployment_makes_the_same_tensors_as_training(channels: int, resize: str) -> None:
    assert len(AWKWARD) >= 40
    spec = specification(channels, resize)
    wanted = as_trained(list(AWKWARD.values()), spec).numpy()
    made = spec.normalise(np.stack([spec.pixels(raw) for raw in AWKWARD.values()]))
    assert made.dtype == np.float32
    assert np.array_equal(made, wanted)


def test_normalising_is_exact_for_every_value_and_any_statistics() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1)
    generator = np.random.default_rng(0)
    for mean, std in zip(
        generator.uniform(0, 1, 40), generator.uniform(0.05, 0.5, 40), strict=True
    ):
        spec = Preprocessing(16, 16, 1, (float(mean),), (float(std),))
        images = Images(pixels, torch.zeros(1, dtype=torch.int64), ("any",), spec.mean, spec.std)
        assert np.array_equal(spec.normalise(pixels.numpy()), next(images.batches(1))[0].numpy())
        assert np.allclose(spec.table()[0, 255], (1 - mean) / std, rtol=1e-5)


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_turned_photo_is_seen_upright(turn: int) -> None:
    """As Pillow's own viewer helper turns it, and its size is known from the header."""
    from PIL import ImageOps

    raw = encoded(rgb(), "PNG", turn)
    with Image.open(io.BytesIO(raw)) as image:
        height, width = upright_size(image)
        wanted = np.array(ImageOps.exif_transpose(image).convert("RGB"))
    assert np.array_equal(decode(raw, grey=False), wanted)
    assert (height, width) == wanted.shape[:2]


def test_sixteen_bits_keep_their_high_byte() -> None:
    wanted = decode(AWKWARD["grey jpeg"], grey=True).shape
    deep = decode(AWKWARD["16-bit grey png"], grey=True)
    assert deep.shape == wanted
    assert len(np.unique(deep)) > 100
    assert decode(AWKWARD["16-bit grey, dark"], grey=True).max() == 0
    for name in ("16-bit grey tiff", "16-bit grey pgm"):
        assert np.array_equal(decode(AWKWARD[name], grey=True), deep), name


def test_cropping_keeps_proportions_and_squashing_the_whole_picture() -> None:
    white = np.zeros((20, 60, 3), np.uint8)
    white[:, 20:40] = 255
    picture = Image.fromarray(white)
    crop = specification(3, CROP).pixels(picture)
    squash = specification(3, SQUASH).pixels(picture)
    assert crop.min() > 200
    assert squash[:, 0].max() == 0
    assert squash[:, 8].min() > 200


def test_the_first_frame_counts() -> None:
    for name in ("gif of two frames", "png of two frames", "webp of two frames"):
        with Image.open(io.BytesIO(AWKWARD[name])) as image:
            wanted = np.array(image.convert("RGB"))
        assert np.array_equal(decode(AWKWARD[name], grey=False), wanted), name


def test_the_specification_survives_json_and_is_in_the_card(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            for k in range(3):
                raw = encoded(rgb(30 + k, 20), "JPEG", turn=6)
                (tmp_path / split / name / f"{k}.jpg").write_bytes(raw)
    config = DataConfig(root=str(tmp_path), image_size=12, resize="squash", cache=False)
    card = DataCard.from_dict(describe(config).to_dict())
    spec = card.specification()
    assert (spec.height, spec.width, spec.resize) == (12, 12, SQUASH)
    assert Preprocessing.from_dict(spec.to_dict()) == spec
    x, _ = next(load_test(config).batches(6))
    files = sorted((tmp_path / "test").rglob("*.jpg"))
    made = spec.normalise(np.stack([spec.pixels(path.read_bytes()) for path in files]))
    assert np.array_equal(made, x.numpy())


def test_a_card_of_an_older_release_still_says_how_its_pictures_are_seen() -> None:
    shape, counts = (3, 8, 8), {"train": (1, 1)}
    card = DataCard("folders", "x", ("a", "b"), shape, counts, MEAN, STD, "0" * 64)
    assert card.specification() == Preprocessing(8, 8, 3, MEAN, STD, CROP)


def test_another_way_of_resizing_is_decoded_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = tmp_path / "images"
    for split in ("train", "test"):
        for name in ("a", "b"):
            (root / split / name).mkdir(parents=True)
            for k in range(2):
                (root / split / name / f"{k}.png").write_bytes(encoded(rgb(40, 12 + k), "PNG"))

    def shown(resize: str) -> torch.Tensor:
        config = DataConfig(root=str(root), image_size=12, resize=resize)
        return next(load_test(config).batches(4))[0]

    assert not torch.equal(shown("crop"), shown("squash"))
    assert len(list((tmp_path / "cache" / "rlp" / "data").iterdir())) == 2
