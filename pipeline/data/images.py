"""A labelled set of small images: one uint8 tensor, served in normalised batches."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from pipeline.data.augment import Augment, crop_and_flip, cutout, mixup

_NOTHING = Augment()
NO_VARIATION = 1.0
"""Stands for the standard deviation of a channel that has none; of pixels in 0 … 1 none is above
½."""


class Images:
    """One split: images, labels, class names and the normalisation that belongs to them.

    Args:
        pixels: (N, H, W, C) uint8; may be memory-mapped, is never written to.
        labels: (N,) int64 in 0 … len(classes) − 1, parallel to `rows` when that is given, else to
            `pixels`.
        classes: class names.
        mean, std: per channel, of pixel values scaled to 0 … 1; computed from these images when
            absent.
        rows: (N,) int64, the images of `pixels` that belong to this split; all when absent. A split
            never copies pixels.
    Raises:
        ValueError: dtypes or lengths are others.
    """

    def __init__(
        self,
        pixels: Tensor,
        labels: Tensor,
        classes: Sequence[str],
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        rows: Tensor | None = None,
    ) -> None:
        if pixels.dtype != torch.uint8 or pixels.ndim != 4:
            raise ValueError(
                f"pixels must be uint8 (N, H, W, C), got {pixels.dtype} {tuple(pixels.shape)}"
            )
        self._set_up(labels, classes, tuple(pixels.shape[1:]))
        count = len(pixels if rows is None else rows)
        if len(labels) != count:
            raise ValueError(f"{len(labels)} labels for {count} images")
        self._pixels, self._rows = pixels, rows
        if mean is None or std is None:
            mean, std = channel_statistics(pixels if rows is None else pixels[rows])
        self.mean, self.std = tuple(mean), tuple(std)

    def _set_up(
        self, labels: Tensor, classes: Sequence[str], height_width_channels: tuple[int, ...]
    ) -> None:
        height, width, channels = height_width_channels
        self.labels = labels.to(torch.int64)
        self.classes = tuple(classes)
        self.image_shape = (channels, height, width)
        # what pixels are scaled and shifted by, made once for each device and dtype
        self._weights: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def subset(self, indices: Tensor) -> Images:
        """The images at `indices` (M,) int64 of this set, in that order; shares the pixels."""
        # these are on the CPU at all times, whatever the pixels are on
        rows = indices.cpu() if self._rows is None else self._rows[indices.cpu()]
        return Images(self._pixels, self.labels[indices], self.classes, self.mean, self.std, rows)

    def numbered(self) -> Images:
        """The same images labelled 0 … N-1, for what is kept of every image by its place."""
        view = copy.copy(self)
        view.labels = torch.arange(len(self), device=self.labels.device)
        return view

    def to(self, device: torch.device | str) -> Images:
        """The same images with their pixels on `device`; batches then come from there."""
        if self._pixels.device == torch.device(device):
            return self
        # the rows of this split alone: a device's memory is small
        pixels = self._pixels if self._rows is None else self._pixels[self._rows]
        return Images(pixels.to(device), self.labels.to(device), self.classes, self.mean, self.std)

    def batches(
        self,
        batch_size: int,
        *,
        shuffle: bool = False,
        augment: Augment | None = None,
        generator: torch.Generator | None = None,
        drop_last: bool = False,
        dtype: torch.dtype = torch.float32,
        channels_last: bool = True,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield `(x, y)`: x (B, C, H, W) `dtype`, normalised; y (B,) int64.

        Under mixup y are probabilities (B, classes) float32.

        Args:
            batch_size: images a batch; the last one may be smaller unless `drop_last`.
            shuffle: a new order, drawn from `generator`.
            augment: random changes, drawn from `generator`.
            generator: a CPU generator; required by `shuffle` and `augment`, so that a run can be
                repeated.
            channels_last: memory format of x; on CPUs convolutions are faster on it.
        Raises:
            ArtifactError: an image that is streamed can no longer be read.
            ValueError: a generator is needed and absent.
        """
        augment = augment or _NOTHING
        if (shuffle or augment != _NOTHING) and generator is None:
            raise ValueError("shuffle and augment need a generator")
        count = len(self)
        order = torch.randperm(count, generator=generator) if shuffle else torch.arange(count)
        least = batch_size if drop_last else 1
        chunks = [chunk for chunk in order.split(batch_size) if len(chunk) >= least]
        for indices, pixels in self._pixel_batches(chunks, augment, generator):
            y = self.labels[indices.to(self.labels.device)]
            x = self._normalise(pixels, dtype, channels_last)
            if augment.cutout:
                x = cutout(x, augment.cutout, generator)  # type: ignore[arg-type]
            if augment.mixup:
                x, y = mixup(x, y, self.num_classes, augment.mixup, generator)  # type: ignore[arg-type]
            yield x, y

    def take(self, n: int, *, seed: int) -> tuple[Tensor, Tensor]:
        """A fixed class-balanced draw of n images, or all: x (n, C, H, W) normalised, y (n,)."""
        subset = self.subset(balanced_indices(self.labels, n, seed))
        return next(subset.batches(max(1, len(subset))))

    def _pixel_batches(
        self, chunks: list[Tensor], augment: Augment, generator: torch.Generator | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield `(indices, pixels)`, pixels (B, H, W, C) uint8, cropped and flipped as asked."""
        for indices in chunks:
            rows = indices if self._rows is None else self._rows[indices]
            pixels = self._pixels[rows.to(self._pixels.device)]
            yield indices, crop_and_flip(pixels, augment, generator) if generator else pixels

    def _normalise(self, pixels: Tensor, dtype: torch.dtype, channels_last: bool) -> Tensor:
        """(pixels / 255 - mean) / std in one multiply-add, as (B, C, H, W)."""
        key = (pixels.device, dtype)
        if key not in self._weights:
            std = torch.tensor(self.std, dtype=torch.float64)
            scale, shift = 1 / (255 * std), -torch.tensor(self.mean, dtype=torch.float64) / std
            self._weights[key] = (scale.to(*key), shift.to(*key))
        scale, shift = self._weights[key]
        x = torch.addcmul(shift, pixels.to(dtype), scale).permute(0, 3, 1, 2)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        return x.contiguous(memory_format=layout)  # pixels lie channels-last: usually no copy


def channel_statistics(
    pixels: Tensor, chunk: int = 4096
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of `pixels` (N, H, W, C) uint8 scaled to 0 … 1.

    From counts of the 256 values, so exact whatever the number of images. A channel without any
    variation gets std 1, so that normalising stays finite.
    """
    channels = pixels.shape[3]
    counts = torch.zeros(channels, 256, dtype=torch.int64)
    for part in pixels.split(chunk):  # a channel is copied out: chunks keep the copies small
        for c in range(channels):
            counts[c] += torch.bincount(part[..., c].reshape(-1).cpu(), minlength=256)
    values = torch.arange(256, dtype=torch.float64) / 255
    share = counts.double() / counts.sum(1, keepdim=True).clamp_min(1)
    mean = share @ values
    std = (share * (values - mean[:, None]) ** 2).sum(1).sqrt()
    return tuple(mean.tolist()), tuple(torch.where(std > 0, std, NO_VARIATION).tolist())


def balanced_indices(labels: Tensor, n: int, seed: int) -> Tensor:
    """Ascending indices of n of the `labels` (N,), as even over the classes as they allow.

    Every class is shuffled by `seed`; then rank 0 of each class, rank 1 of each, … are taken until
    there are n, or all.
    """
    labels = labels.cpu()
    if n >= len(labels):
        return torch.arange(len(labels))
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    rank = torch.empty(len(labels), dtype=torch.int64)
    for k in labels.unique():
        mine = order[labels[order] == k]
        rank[mine] = torch.arange(len(mine))
    by_rank = order[torch.argsort(rank[order], stable=True)]  # within a rank the shuffle decides
    return by_rank[:n].sort().values
