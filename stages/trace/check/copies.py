"""The networks that a check compares, and what they are run on.

`large` is the traced network, or for the sake of speed what a first cut leaves of a big one;
`small` is what a second cut leaves of `large`; `silenced` is `large` with zero weights where the
second cut takes units out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_map

from pipeline.channels.graph import ChannelGraph, Keep, Place
from pipeline.channels.rebuild import rebuild
from stages.trace.capture import meta_shapes
from stages.trace.capture.inventory import Inventory
from stages.trace.capture.model_state import set_training

Removed = Mapping[Place, np.ndarray]

_BIG = 2_000_000  # elements; a network up to that size is compared whole
_SMALL_IMAGE = 64  # pixels: enough for five halvings, a twelfth of the arithmetic of 224
_LARGE_IMAGE = 96  # an image below that is not made smaller
_GOLDEN = 0.6180339887  # its multiples, modulo 1, are spread evenly however many there are
# a prime number of them: repeated along a weight, they begin elsewhere in every channel
_FACTORS = np.random.default_rng(0).uniform(0.7, 1.3, 4099)


@dataclass(frozen=True)
class Cuts:
    """Which units are left: {group id: units}, of the whole network in both."""

    large: Keep
    small: Keep

    @staticmethod
    def draw(
        graph: ChannelGraph, ids: Iterable[str], inventory: Inventory, number: int = 0
    ) -> Cuts:
        """Random units of these groups, another share of each, and fewer of the last ones.

        Equal shares would hide that a size of one group was taken for that of another; even ones,
        that a half of it was. Of a big network `large` is so much that about `_BIG` elements are
        left, and three units of a group. Groups that are not named stay whole: what a cut of them
        breaks is no matter of these.

        Draws 1 and 2 leave every other group whole, take other shares, and more of the first units:
        in `x[:, : x.shape[1] // 2]` of 2 + 2 units a cut of one half alone shows what one of both
        by the same number would not. Draws from 3 on leave one unit more each, so that widths
        differ in what they are divisible by.
        """
        generator = np.random.default_rng(number)
        wanted = set(ids)
        elements = sum(tensor.numel() for tensor in inventory.parameters.values())
        share = (_BIG / max(elements, _BIG)) ** 0.5  # a weight shrinks along both of its dimensions
        large, small = {}, {}
        for position, group in enumerate(group for group in graph.prunable if group.size > 1):
            place = np.arange(group.size) / group.size
            if number:
                place = place[::-1]
            order = np.argsort(generator.uniform(size=group.size) + place)
            if group.id not in wanted:
                continue
            if share < 1 and group.size > 3:
                order = order[: max(round(group.size * share * generator.uniform(0.7, 1)), 3)]
                large[group.id] = _units(order)
            if number not in (1, 2) or position % 2 == number - 1:
                fraction = 0.25 + 0.5 * (position * _GOLDEN % 1)  # neighbours are far apart
                fraction = 1 - fraction if number in (1, 2) else fraction
                count = min(max(round(len(order) * fraction), 1), len(order) - 1)
                more = max(number - 2, 0)
                small[group.id] = _units(order[: (count - 1 + more) % (len(order) - 1) + 1])
            elif group.id in large:
                small[group.id] = large[group.id]
        return Cuts(large, small)


class Networks:
    """The two networks to compare, in eval mode, with weights that hide nothing."""

    def __init__(
        self,
        model: nn.Module,
        inventory: Inventory,
        graph: ChannelGraph,
        cuts: Cuts,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.model, self.graph, self.cuts, self.dtype = model, graph, cuts, dtype
        self.stored, self.buffers = inventory.stored, inventory.buffers
        self.before = graph.removed_slices(cuts.large)
        self.now = graph.removed_slices(cuts.small)

    def outline(self) -> nn.Module:
        """The small network on tensors without values or device."""
        shapes = {name: list(tensor.shape) for name, tensor in self.stored.items()}
        for (name, dim), gone in self.now.items():
            shapes[name][dim] -= len(gone)
        whole = self.stored.keys() - {name for name, _ in self.now}
        like = {
            name: meta_shapes.like(tensor, None if name in whole else tuple(shapes[name]))
            for name, tensor in self.stored.items()
        }
        return self._built({name: _converted(t, self.dtype) for name, t in like.items()})

    @cached_property
    def small(self) -> nn.Module:
        """What the second cut leaves."""
        # forward may write into buffers; weights are shared until `both` writes zeros
        small = {n: t.clone() if n in self.buffers else t for n, t in self._large.items()}
        for (name, dim), stay in self._places.left_then():
            small[name] = small[name].index_select(dim, stay.to(small[name].device))
        return self._built(small)

    def both(self) -> tuple[nn.Module, nn.Module]:
        """The small network, and the large one without what the second cut takes; only once."""
        small = self.small  # made of weights that are overwritten now
        kept = self.graph.divisors  # zeroed, they would be divided by
        for place, zero in self._places.zeros():
            # `propagate.zeros` takes for granted that buffers are not silenced
            if place[0] not in self.buffers and place not in kept:
                tensor = self._large[place[0]]
                tensor.index_fill_(place[1], zero.to(tensor.device), 0)
        return small, self._built(self._large, self.cuts.large)

    @cached_property
    def _places(self) -> _Places:
        return _Places(self.stored, self.before, self.now)

    @cached_property
    def _large(self) -> dict[str, torch.Tensor]:
        large = dict(self.stored)
        # rows first: they lie together
        for (name, dim), stay in sorted(self._places.left_first(), key=lambda left: left[0][1]):
            large[name] = large[name].detach().index_select(dim, stay.to(large[name].device))
        return {n: _exercised(t, self.stored[n], n, self.dtype) for n, t in large.items()}

    def _built(self, tensors: Mapping[str, torch.Tensor], keep: Keep | None = None) -> nn.Module:
        widths = self.graph.widths_after(self.cuts.small if keep is None else keep)
        built = rebuild(self.model, tensors, widths, self.stored)
        set_training(built, False)
        return built


class _Places:
    """Slices that two cuts leave and take; those of the second numbered as the first leaves them.

    For 6 slices of which the first cut takes 1 and 4, and the second also 2:

        first leaves   0 2 3 5
        then left      0 2 3       of these four
        zeros          1
    """

    def __init__(self, whole: Mapping[str, torch.Tensor], before: Removed, now: Removed) -> None:
        known: dict[tuple[int, int, int], tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = {}
        self._found = {}
        none = np.zeros(0, dtype=np.int64)
        for place, gone in now.items():
            first = before.get(place, none)
            # by identity: a graph names the same array
            key = whole[place[0]].shape[place[1]], id(first), id(gone)
            if key not in known:  # a batch norm's tensors all lose the same slices
                known[key] = self._numbered(key[0], first, gone)
            self._found[place] = known[key]
        self._before = before

    @staticmethod
    def _numbered(
        size: int, first: np.ndarray, gone: np.ndarray
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        stay, both = np.ones(size, dtype=bool), np.ones(size, dtype=bool)
        stay[first], both[gone] = False, False
        number = np.cumsum(stay) - 1
        parts = np.flatnonzero(stay), number[both], number[stay & ~both]
        left, then, zeros = (torch.from_numpy(part) for part in parts)
        return left, then, zeros

    def left_first(self) -> Iterator[tuple[Place, torch.Tensor]]:
        return ((place, found[0]) for place, found in self._found.items() if place in self._before)

    def left_then(self) -> Iterator[tuple[Place, torch.Tensor]]:
        return ((place, found[1]) for place, found in self._found.items() if len(found[2]))

    def zeros(self) -> Iterator[tuple[Place, torch.Tensor]]:
        return ((place, found[2]) for place, found in self._found.items() if len(found[2]))


def samples(inputs: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """What to run on, the cheapest first: smaller noise images, noise, the example itself."""
    # the same noise for every check, or a deviation could come and go
    generator = torch.Generator().manual_seed(0)
    found = []
    if any(_is_large(leaf) for leaf in inputs):
        found.append(tree_map(_noise(generator, _SMALL_IMAGE), inputs))
    return [*found, tree_map(_noise(generator, None), inputs), inputs]


def outlines(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Inputs without values or device."""
    return tree_map(lambda v: meta_shapes.like(v) if torch.is_tensor(v) else v, inputs)


def as_dtype(inputs: tuple[Any, ...], dtype: torch.dtype | None = None) -> tuple[Any, ...]:
    """Inputs in the precision of `Networks`, copied: a forward may write into them."""
    return tree_map(
        lambda value: _converted(value, dtype).clone() if torch.is_tensor(value) else value, inputs
    )


def _units(order: np.ndarray) -> tuple[int, ...]:
    return tuple(np.sort(order).tolist())


def _converted(tensor: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    """Half precision becomes float32, or any floating-point tensor `dtype`."""
    if not tensor.is_floating_point():
        return tensor
    return tensor.to(dtype or (torch.float32 if tensor.itemsize < 4 else tensor.dtype))


def _exercised(
    tensor: torch.Tensor, original: torch.Tensor, name: str, dtype: torch.dtype | None
) -> torch.Tensor:
    """A copy without values that would hide a mistake.

    Ones, zeros and other constants make every channel the same, so they become different numbers.
    """
    # what has been cut is a copy already
    copy = tensor.detach().clone() if tensor is original else tensor
    if copy.is_meta:  # it has no values; `_vary` makes some
        copy = torch.zeros(copy.shape, dtype=copy.dtype)
    copy = _converted(copy, dtype)
    learned = isinstance(original, nn.Parameter)
    # other buffers are masks and the like
    if copy.numel() and copy.is_floating_point() and (learned or "running_" in name):
        if copy.device.type == "cpu" and copy.is_contiguous():
            _vary(copy.view(-1).numpy(), signed=learned)
        else:
            values = copy.cpu().reshape(-1).numpy()
            _vary(values, signed=learned)
            copy.copy_(torch.from_numpy(values).view(copy.shape))
    return copy


def _vary(values: np.ndarray, *, signed: bool) -> None:
    """Constant values are multiplied by 0.7 to 1.3; zeros become 0.05 to 0.15, of either sign."""
    if values[0] != values[-1] or (values != values[0]).any():  # the ends settle most of them
        return
    factor = np.resize(_FACTORS, values.size)
    if values[0]:
        values *= factor
    else:
        # a variance stays positive
        values += factor / 10 if not signed else np.where(factor > 1, factor, -factor) / 10


def _is_large(value: Any) -> bool:
    return (
        isinstance(value, torch.Tensor)
        and value.is_floating_point()
        and value.dim() == 4
        and min(value.shape[2:]) >= _LARGE_IMAGE
    )


def _noise(generator: torch.Generator, size: int | None) -> Callable[[Any], Any]:
    def make(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            return value
        shape = list(value.shape)
        if size is not None and _is_large(value):
            shortest = min(shape[2:])
            shape[2:] = [edge * size // shortest for edge in shape[2:]]
        device = "cpu" if value.is_meta else value.device
        return torch.randn(shape, generator=generator).to(device, value.dtype)

    return make
