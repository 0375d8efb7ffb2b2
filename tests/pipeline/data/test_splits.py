"""Train, search and test are disjoint, stratified, fixed by the seed; test cannot be reached."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest
import torch

from pipeline.config.data import DataConfig
from pipeline.data import Images, Splits, load_splits, load_test
from pipeline.data.parts import Part, PreparedData
from pipeline.data.sources import Source
from pipeline.data.splits import carve, stratified
from pipeline.errors import ArtifactError


def numbered(counts: list[int]) -> Images:
    """Image k is the pixel values of k, so that images can be told apart."""
    labels = torch.tensor([label for label, n in enumerate(counts) for _ in range(n)])
    pixels = torch.arange(len(labels), dtype=torch.uint8).reshape(-1, 1, 1, 1)
    return Images(
        pixels, labels, [f"class {k}" for k in range(len(counts))], mean=[0.0], std=[1 / 255]
    )


def identities(images: Images) -> list[int]:
    return [round(v) for x, _ in images.batches(64) for v in x.flatten().tolist()]


def test_every_class_gives_its_share_and_no_image_is_in_both() -> None:
    splits = carve(numbered([100, 50, 20]), 0.1, seed=3)
    assert splits.search.labels.bincount().tolist() == [10, 5, 2]
    assert splits.train.labels.bincount().tolist() == [90, 45, 18]
    assert sorted(identities(splits.train) + identities(splits.search)) == list(range(170))


def test_the_seed_decides() -> None:
    labels = torch.arange(200) % 4
    first, again, other = (
        stratified(labels, 0.2, seed, ("a", "b", "c", "d"))[0] for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_rare_class_is_in_both_and_a_single_image_is_an_error() -> None:
    assert carve(numbered([50, 2]), 0.9, seed=0).train.labels.bincount().tolist() == [5, 1]
    assert carve(numbered([50, 2]), 0.1, seed=0).search.labels.bincount().tolist() == [5, 1]
    with pytest.raises(ArtifactError, match="class 'class 1' has 1 image"):
        carve(numbered([50, 1]), 0.1, seed=0)


def test_embedded_data_are_balanced_grey_and_native_size() -> None:
    config = DataConfig(source="embedded")
    splits, test = load_splits(config, seed=0), load_test(config)
    assert splits.train.labels.bincount().tolist() == [1080] * 10
    assert splits.search.labels.bincount().tolist() == [120] * 10
    assert test.labels.bincount().tolist() == [200] * 10
    assert splits.train.image_shape == test.image_shape == (1, 28, 28)
    assert splits.train.classes[9] == "Ankle boot"
    x = torch.cat([x for x, _ in test.batches(500)])
    assert abs(float(x.mean())) < 0.02
    assert abs(float(x.std()) - 1) < 0.02


def test_limits_take_a_fixed_balanced_draw() -> None:
    config = DataConfig(source="embedded", train_limit=100, test_limit=30)
    one, two = load_splits(config, seed=0), load_splits(config, seed=1)
    assert len(one.train) + len(one.search) == 100
    assert one.search.labels.bincount().tolist() == [1] * 10
    assert load_test(config).labels.bincount().tolist() == [3] * 10

    def pool(splits: Splits) -> list[bytes]:
        return sorted(
            x.numpy().tobytes()
            for part in (splits.train, splits.search)
            for x in next(part.batches(100))[0]
        )

    assert pool(one) == pool(two)


def reachable(root: Any) -> list[Any]:
    """Every object that attributes, containers and closures lead to from `root`."""
    seen: dict[int, Any] = {}
    todo = [root]
    while todo:
        item = todo.pop()
        if id(item) in seen or isinstance(item, type | ModuleType):  # those are no data
            continue
        seen[id(item)] = item
        todo += _led_to(item)
    return list(seen.values())


def _led_to(item: Any) -> list[Any]:
    if isinstance(item, FunctionType):
        return [cell.cell_contents for cell in item.__closure__ or ()]
    found = list(getattr(item, "__dict__", {}).values())
    if isinstance(item, dict):
        found += [*item.keys(), *item.values()]
    elif isinstance(item, list | tuple | set | frozenset):
        found += item
    base = getattr(item, "base", None)  # the array that a view is of
    if base is not None and not isinstance(item, torch.Tensor):
        found.append(base)
    return found


def test_nothing_leads_from_the_splits_to_a_test_image(folders: Callable[..., Path]) -> None:
    root = folders("train", "test")
    held = load_splits(DataConfig(root=str(root)), seed=0)
    streamed = load_splits(DataConfig(root=str(root), in_memory_mb=0), seed=0)
    embedded = load_splits(DataConfig(source="embedded"), seed=0)
    for splits, total in ((held, 15), (streamed, 15), (embedded, 12_000)):
        items = reachable(splits)
        tensors = [t for t in items if isinstance(t, torch.Tensor) and t.ndim == 4]
        assert all(len(t) == total for t in tensors)
        # what test images could be loaded from
        assert not [i for i in items if isinstance(i, (DataConfig, PreparedData, Part, Source))]
        paths = [str(i) for i in items if isinstance(i, Path)]
        assert not [p for p in paths if "/test" in p.removeprefix(str(root.parent))]
    # the walk does find the train files
    assert [str(i) for i in reachable(streamed) if isinstance(i, Path)]


def test_a_validation_split_beside_train_and_test_is_the_search_split(
    folders: Callable[..., Path],
) -> None:
    splits = load_splits(DataConfig(root=str(folders("train", "val", "test", each=4))), seed=0)
    assert (len(splits.train), len(splits.search)) == (12, 12)
