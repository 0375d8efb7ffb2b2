"""Images too large to be held decoded: loader processes decode them, behind the same interface."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from pipeline.data.augment import Augment
from pipeline.data.content import Encoded
from pipeline.data.decode import try_decode
from pipeline.data.images import Images
from pipeline.errors import ArtifactError
from pipeline.preprocessing import UNREADABLE, Fit, decode

CROP_SCALE = (0.35, 1.0)
"""Share of the picture's area that a random resized crop keeps."""

WORTH_WORKERS = 256
"""Images from which on loader processes are started."""


class StreamedImages(Images):
    """As `Images`, but every batch is decoded when it is asked for.

    Evaluation resizes as `fit` says; `Augment(crop=…)` takes a random resized crop instead. Every
    image draws from a seed of its own, so that the number of workers changes nothing.

    Args:
        images: the encoded images of one split.
        rows: (N,) int64, those of them that belong here.
        fit: height and width in pixels of what the network sees, a square, and how to get there.
        grey: one channel instead of three.
        workers: loader processes; 0 decodes in this one.
    """

    def __init__(
        self,
        images: Encoded,
        rows: Tensor,
        classes: Sequence[str],
        mean: Sequence[float],
        std: Sequence[float],
        *,
        fit: Fit,
        grey: bool = False,
        workers: int = 0,
    ) -> None:
        shape = (fit.height, fit.width, 1 if grey else 3)
        self._set_up(torch.from_numpy(images.labels)[rows], classes, shape)
        self._encoded, self._rows = images, rows
        self._fit, self._grey, self._workers = fit, grey, workers
        self.mean, self.std = tuple(mean), tuple(std)

    def subset(self, indices: Tensor) -> StreamedImages:
        assert self._rows is not None
        return StreamedImages(
            self._encoded,
            self._rows[indices],
            self.classes,
            self.mean,
            self.std,
            fit=self._fit,
            grey=self._grey,
            workers=self._workers,
        )

    def to(self, device: torch.device | str) -> StreamedImages:
        """These images: they are decoded on the CPU, and what takes a batch moves it."""
        return self

    def _pixel_batches(
        self, chunks: list[Tensor], augment: Augment, generator: torch.Generator | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        assert self._rows is not None
        seed = int(torch.randint(2**62, (), generator=generator)) if generator else 0
        pictures = _Pictures(self._encoded, self._rows, self._fit, self._grey, augment, seed)
        # Starting processes for a handful of images takes longer than decoding them here.
        workers = self._workers if sum(map(len, chunks)) >= WORTH_WORKERS else 0
        batches = [chunk.tolist() for chunk in chunks]
        loader = DataLoader(
            pictures,
            batch_sampler=batches,  # type: ignore[arg-type]
            num_workers=workers,
            collate_fn=_collate,
            # DataLoader would otherwise draw its base seed from the global generator.
            generator=torch.Generator().manual_seed(seed),
        )
        yield from loader


class _Pictures(Dataset):
    """Rows of `images` as (index, (size, size, C) uint8), augmented where that is asked for."""

    def __init__(
        self, images: Encoded, rows: Tensor, fit: Fit, grey: bool, augment: Augment, seed: int
    ) -> None:
        self._images, self._rows, self._fit, self._grey = images, rows, fit, grey
        self._augment, self._seed = augment, seed

    def __getitem__(self, index: int) -> tuple[int, Tensor]:
        row = int(self._rows[index])
        if not self._augment.crop and not self._augment.flip:
            array = try_decode(self._images, row, grey=self._grey, fit=self._fit)
            if array is None:
                raise self._changed(row)
            return index, torch.from_numpy(array)
        return index, self._random(row, index)

    def _random(self, row: int, index: int) -> Tensor:
        from pipeline.torchvision_import import import_torchvision

        import_torchvision()
        from torchvision.transforms import v2

        augment = self._augment
        fit = None if augment.crop else self._fit  # a random crop needs the whole picture
        try:
            picture = decode(self._images.read(row), grey=self._grey, fit=fit)
        except UNREADABLE:
            raise self._changed(row) from None
        steps: list[nn.Module] = []
        if augment.crop:
            steps.append(v2.RandomResizedCrop(self._fit.height, scale=CROP_SCALE, antialias=True))
        if augment.flip:
            steps.append(v2.RandomHorizontalFlip())
        # A seed of its own, so that neither order nor number of workers changes an image.
        with torch.random.fork_rng(devices=[]):  # a forked worker cannot touch CUDA
            # 2^32 / golden ratio: neighbours' seeds lie far apart
            torch.manual_seed((self._seed + 0x9E3779B9 * (index + 1)) % 2**63)
            return v2.Compose(steps)(torch.from_numpy(picture).permute(2, 0, 1)).permute(1, 2, 0)

    def _changed(self, row: int) -> ArtifactError:
        return ArtifactError(
            f"{self._images.name(row)} can no longer be decoded",
            hint="the image changed since the run began; start it again",
        )


def _collate(samples: list[tuple[int, Tensor]]) -> tuple[Tensor, Tensor]:
    indices, pictures = zip(*samples, strict=True)
    return torch.tensor(indices), torch.stack(pictures)
