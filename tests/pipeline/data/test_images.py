"""Batches: right pixels, right normalisation, and the same bits for the same generator."""

from __future__ import annotations

import pytest
import torch

from pipeline.data import Augment, Images
from pipeline.data.augment import crop_and_flip
from pipeline.data.images import balanced_indices, channel_statistics


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tiny(count: int = 20, channels: int = 3, size: int = 6) -> Images:
    pixels = torch.randint(
        0, 256, (count, size, size, channels), generator=seeded(), dtype=torch.uint8
    )
    return Images(pixels, torch.arange(count) % 4, ["a", "b", "c", "d"])


@pytest.mark.parametrize("channels", [1, 3])
def test_whole_set_has_zero_mean_and_unit_variance(channels: int) -> None:
    x = torch.cat([x for x, _ in tiny(channels=channels).batches(8)])
    assert x.shape == (20, channels, 6, 6)
    assert x.dtype == torch.float32
    torch.testing.assert_close(x.mean((0, 2, 3)), torch.zeros(channels), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        x.var((0, 2, 3), correction=0), torch.ones(channels), atol=1e-5, rtol=0
    )


def test_values_are_pixels_over_255_minus_mean_over_std() -> None:
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(3, 1, 1, 1)
    images = Images(pixels, torch.zeros(3), ["only"], mean=[0.2], std=[0.5])
    (x, y), *rest = images.batches(8)
    assert not rest
    torch.testing.assert_close(x.flatten(), torch.tensor([-0.4, 0.0, 1.6]))
    assert y.dtype == torch.int64


def test_batches_are_channels_last_and_cover_the_set_once() -> None:
    batches = list(tiny().batches(8, shuffle=True, generator=seeded()))
    assert [len(x) for x, _ in batches] == [8, 8, 4]
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x, _ in batches)
    assert torch.cat([y for _, y in batches]).bincount().tolist() == [5, 5, 5, 5]
    assert [len(x) for x, _ in tiny().batches(8, drop_last=True)] == [8, 8]


ALL = Augment(crop=2, flip=True, cutout=3, mixup=0.4)


def test_same_generator_same_bits_other_generator_others() -> None:
    def epoch(seed: int) -> torch.Tensor:
        parts = [
            torch.cat([x.flatten(), y.flatten()])
            for x, y in tiny().batches(8, shuffle=True, augment=ALL, generator=seeded(seed))
        ]
        return torch.cat(parts)

    assert torch.equal(epoch(1), epoch(1))
    assert not torch.equal(epoch(1), epoch(2))


def test_nothing_is_drawn_from_the_global_generator() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    list(tiny().batches(8, shuffle=True, augment=ALL, generator=seeded()))
    tiny().take(4, seed=0)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("options", [{"shuffle": True}, {"augment": Augment(flip=True)}])
def test_randomness_without_a_generator_is_refused(options: dict) -> None:
    with pytest.raises(ValueError, match="need a generator"):
        next(tiny().batches(4, **options))


def test_every_crop_is_a_window_of_the_padded_image_or_its_mirror() -> None:
    pixels = tiny(count=40, size=5)._pixels
    out = crop_and_flip(pixels, Augment(crop=1, flip=True), seeded())
    padded = torch.nn.functional.pad(pixels, (0, 0, 1, 1, 1, 1))
    kinds = set()
    for image, source in zip(out, padded, strict=True):
        windows = {
            (dy, dx, mirrored): (w.flip(1) if mirrored else w)
            for dy in range(3)
            for dx in range(3)
            for mirrored in (False, True)
            for w in [source[dy : dy + 5, dx : dx + 5]]
        }
        matches = [key for key, window in windows.items() if torch.equal(window, image)]
        assert matches
        kinds.add(matches[0])
    assert len(kinds) > 12  # of 18: they really vary


def test_flip_mirrors_left_to_right_and_about_half() -> None:
    pixels = torch.arange(4, dtype=torch.uint8).reshape(1, 1, 4, 1).expand(400, 2, 4, 1)
    first = crop_and_flip(pixels, Augment(flip=True), seeded())[:, 0, 0, 0]
    assert set(first.tolist()) == {0, 3}
    assert 150 < int((first == 3).sum()) < 250


def test_cutout_zeroes_one_square_and_nothing_else() -> None:
    pixels = torch.full((200, 8, 8, 1), 255, dtype=torch.uint8)
    images = Images(pixels, torch.zeros(200), ["only"], mean=[0.5], std=[0.5])
    x, _ = next(images.batches(200, augment=Augment(cutout=4), generator=seeded()))
    holes = (x == 0).flatten(1).sum(1)
    assert set(x.round(decimals=4).unique().tolist()) == {0.0, 1.0}
    assert int(holes.max()) == 16
    assert 4 <= int(holes.min()) < 16  # centred near the border, clipped by it


def test_mixup_targets_are_probabilities_that_match_the_blend() -> None:
    pixels = torch.tensor([0, 255], dtype=torch.uint8).reshape(2, 1, 1, 1).repeat(8, 1, 1, 1)
    images = Images(pixels, torch.arange(16) % 2, ["dark", "light"], mean=[0.0], std=[1.0])
    x, y = next(images.batches(16, augment=Augment(mixup=1.0), generator=seeded(3)))
    assert y.shape == (16, 2)
    torch.testing.assert_close(y.sum(1), torch.ones(16))
    torch.testing.assert_close(x.flatten(), y[:, 1])  # the share of light is the brightness
    assert bool(((y > 0) & (y < 1)).any())


def test_subset_shares_pixels_and_keeps_order_and_normalisation() -> None:
    images = tiny()
    part = images.subset(torch.tensor([5, 3, 8])).subset(torch.tensor([2, 0]))
    assert part._pixels.data_ptr() == images._pixels.data_ptr()
    whole = next(images.batches(20))[0]
    assert torch.equal(next(part.batches(4))[0], whole[[8, 5]])
    assert part.labels.tolist() == [0, 1]
    assert part.mean == images.mean


def test_moving_to_a_device_keeps_the_batches() -> None:
    part = tiny().subset(torch.tensor([5, 3, 8]))
    assert torch.equal(next(part.to("cpu").batches(4))[0], next(part.batches(4))[0])


def test_take_is_balanced_and_fixed_by_its_seed() -> None:
    images = tiny(count=40)
    x, y = images.take(10, seed=7)
    assert x.shape == (10, 3, 6, 6)
    assert sorted(y.bincount().tolist()) == [2, 2, 3, 3]
    assert torch.equal(x, images.take(10, seed=7)[0])
    assert not torch.equal(x, images.take(10, seed=8)[0])
    assert len(images.take(1000, seed=0)[0]) == 40


def test_balanced_draw_of_an_unbalanced_set_takes_the_rare_class_whole() -> None:
    labels = torch.tensor([0] * 90 + [1] * 10)
    chosen = balanced_indices(labels, 40, seed=0)
    assert labels[chosen].bincount().tolist() == [30, 10]
    assert torch.equal(chosen, chosen.unique())


def test_statistics_are_those_of_torch_and_a_flat_channel_has_std_one() -> None:
    pixels = tiny()._pixels.clone()
    pixels[..., 2] = 51
    mean, std = channel_statistics(pixels, chunk=7)
    flat = pixels[..., :2].double().reshape(-1, 2) / 255
    torch.testing.assert_close(torch.tensor(mean[:2], dtype=torch.float64), flat.mean(0))
    torch.testing.assert_close(
        torch.tensor(std[:2], dtype=torch.float64), flat.std(0, correction=0)
    )
    assert mean[2] == pytest.approx(0.2)
    assert std[2] == 1.0


@pytest.mark.parametrize(
    ("pixels", "labels"),
    [
        (torch.zeros(2, 3, 3), torch.zeros(2)),
        (torch.zeros(2, 3, 3, 1), torch.zeros(2)),
        (torch.zeros(2, 3, 3, 1, dtype=torch.uint8), torch.zeros(3)),
    ],
)
def test_wrong_tensors_are_refused(pixels: torch.Tensor, labels: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"pixels must be|labels for"):
        Images(pixels, labels, ["a"])
