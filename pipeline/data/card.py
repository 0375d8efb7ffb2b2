"""What a data set is, in figures that two runs can be compared by."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.preprocessing import CROP, Preprocessing


@dataclass(frozen=True)
class DataCard:
    """Facts about one data set; the same files give the same card whatever the seed.

    Attributes:
        source: kind of source, a key of `SOURCES`.
        label: what to print beside a number measured on it.
        image_shape: (channels, height, width) as the network sees them.
        counts: images per class, for every split that the source has (before the search split is
            carved from train).
        mean, std: per channel, of the train split, pixel values scaled to 0 … 1.
        sha256: identity of the content: class names, labels and files of every split
            (`pipeline.data.hashing`).
        split_sha256: the part of it that belongs to each split.
        skipped: unreadable images left out, per split.
        encodings: how the images are stored, such as `JPEG q75`, and how many are.
        sizes: height×width as stored, and how many images are; the most frequent first.
        remarks: sentences for people on what was found: files left out, images in two splits.
        preprocessing: how a picture becomes the network's input
            (`pipeline.preprocessing.Preprocessing.to_dict`).
    """

    source: str
    label: str
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    counts: dict[str, tuple[int, ...]]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    sha256: str
    split_sha256: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    encodings: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    preprocessing: dict[str, Any] = field(default_factory=dict)

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def in_channels(self) -> int:
        return self.image_shape[0]

    @property
    def images(self) -> dict[str, int]:
        """Images per split."""
        return {split: sum(counts) for split, counts in self.counts.items()}

    def specification(self, resize: str = CROP) -> Preprocessing:
        """How a picture becomes the network's input, as recorded; cards of older releases record
        nothing, and are of pictures resized by `resize`.
        """
        if self.preprocessing:
            return Preprocessing.from_dict(self.preprocessing)
        channels, height, width = self.image_shape
        return Preprocessing(height, width, channels, self.mean, self.std, resize)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and dicts, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> DataCard:
        """Inverse of `to_dict`, also after a trip through JSON."""
        # JSON knows no tuples, and cards are compared
        lists = {name: tuple(raw[name]) for name in ("classes", "image_shape", "mean", "std")}
        lists["remarks"] = tuple(raw.get("remarks", ()))  # cards of older releases have none
        counts = {split: tuple(values) for split, values in raw["counts"].items()}
        return cls(**{**raw, **lists, "counts": counts})
