"""Settings of the images."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.config.section import Fraction, Section


class DataConfig(Section):
    """The images, in three splits: train (weights), search (every choice), test (benchmark and
    report only).
    """

    source: str = Field("auto", min_length=1)
    """Kind of data: `auto` recognises what lies in `root`; `embedded` needs no files; see `rlp
    data ls`."""
    root: str | None = None
    """Folder that holds the images, relative to the config or to the current folder."""
    label: str | None = None
    """Name of the data printed beside every number; derived from the files when absent."""
    search_fraction: Fraction = 0.1
    """Share of the training images held out as the search split, stratified by class and seeded."""
    image_size: int | None = Field(None, ge=8, le=1024)
    """Height and width in pixels that images are resized to; absent: as they are (all must then
    have one size)."""
    resize: Literal["crop", "squash"] = "crop"
    """How an image of other proportions gets that size: `crop` scales until both sides are covered
    and takes the middle, `squash` lets the proportions go."""
    channels: Literal["auto", 1, 3] = "auto"
    """Channels that the network is given: 3 repeats grey images, as torchvision's loader does, 1
    turns colours to grey; auto: as the images are."""
    classes: tuple[str, ...] | None = None
    """Class names in the order of the network's outputs; absent: sorted as text, `10` before
    `9`."""
    max_corrupt: float = Field(0.01, ge=0, lt=1)
    """Share of unreadable images above which the run stops; below it they are skipped and
    counted."""
    workers: int = Field(2, ge=0, le=64)
    """Loader processes for data sets too large to be held decoded in memory."""
    download: bool = True
    """Whether a missing public data set may be downloaded."""
    in_memory_mb: int = Field(2048, ge=0)
    """Decoded size in MB up to which images of at most 96×96 pixels are kept as one tensor;
    others stream from disk."""
    cache: bool = True
    """Whether decoded images are kept in the user's cache folder, to start faster next time."""
    train_limit: int | None = Field(None, ge=20)
    """Most images used for train and search together, a fixed class-balanced draw; absent: all."""
    test_limit: int | None = Field(None, ge=10)
    """Most test images used, a fixed class-balanced draw; absent: all."""
    mean: tuple[float, ...] | None = None
    """Per-channel mean of pixels scaled to 0 … 1 that the weights were trained with; absent:
    that of the data."""
    std: tuple[float, ...] | None = None
    """Per-channel standard deviation that goes with `mean`; absent: that of the data."""
