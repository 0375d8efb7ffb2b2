"""Images: sources, honest splits, and batches that cost nothing.

>>> splits = load_splits(config.data, seed=0)       # .train and .search; no way to the test images
>>> augment = Augment(crop=4, flip=True)
>>> for x, y in splits.train.batches(128, shuffle=True, augment=augment, generator=g): ...
"""

from pipeline.data.augment import Augment
from pipeline.data.card import DataCard
from pipeline.data.images import Images
from pipeline.data.load import describe, load_splits, load_test
from pipeline.data.splits import Splits

__all__ = ["Augment", "DataCard", "Images", "Splits", "describe", "load_splits", "load_test"]
