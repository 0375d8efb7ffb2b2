"""What one layer multiplies, as counts that follow the groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple


class Extent(NamedTuple):
    """Channels that are counted apart from any stored tensor: `length` of them.

    `follows` pairs a group id with how much the length loses for each unit removed from it.
    """

    length: int
    follows: tuple[tuple[str, int], ...]


class Product(NamedTuple):
    """Multiplications for one sample: `times` the lengths of `extents`, at most two.

    A linear layer over the 8 columns of a map of 16 channels and 8 rows multiplies 8 · 8 · 8 times
    for each channel: `Product(512, (Extent(16, (("conv", 1),)),))`.
    """

    times: int
    extents: tuple[Extent, ...] = ()


@dataclass(frozen=True)
class LayerCost:
    """One module, its parameters and what it multiplies.

    `positions` is the number of times the whole weight is multiplied for one sample, summed over
    all uses (output pixels of a convolution, rows of a linear layer), so that MACs = positions ×
    weight elements. `weight` may also be a buffer. `products` come on top: parts of a weight,
    layers that act across positions, products of activations.
    """

    name: str
    type: str
    parameters: tuple[str, ...]
    weight: str = ""
    positions: int = 0
    out_dim: int = 0
    in_dim: int = 1
    groups: int = 1
    products: tuple[Product, ...] = ()


def layer_from_json(entry: Mapping[str, Any]) -> LayerCost:
    """Inverse of `vars(layer)` as JSON. Raises TypeError or ValueError for anything else."""
    fields = dict(entry)
    products = [_product(*product) for product in fields.pop("products", ())]
    if fixed := int(fields.pop("fixed_macs", 0)):  # how graphs were written before `products`
        products.append(Product(fixed))
    return LayerCost(
        **{**fields, "parameters": tuple(fields["parameters"]), "products": tuple(products)}
    )


def _product(times: int, extents: Sequence[tuple[int, Sequence[tuple[str, int]]]]) -> Product:
    read = (
        Extent(int(length), tuple((str(group), int(share)) for group, share in follows))
        for length, follows in extents
    )
    return Product(int(times), tuple(read))
