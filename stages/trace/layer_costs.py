"""From counted uses to the rows of a cost table: one for each module that multiplies or owns
parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pipeline.channels.layer_cost import Extent, LayerCost, Product
from stages.trace.propagate.label_pass import Pass, Use
from stages.trace.propagate.label_values import Vector

Follow = Callable[[Vector], tuple[tuple[str, int], ...]]
"""Labels to (group, how many of them one of its units holds)."""


def layer_costs(state: Pass, follow: Follow, batch: int) -> list[LayerCost]:
    """Rows in model order, then those of calls whose module has no tensors; counts are for one of
    the `batch` samples.
    """
    rows: dict[str, LayerCost] = {}
    for path, (parameters, used) in _tensors(state).items():
        named = used if len(used) > 1 else []  # their layouts may differ: a row each
        rest = tuple(name for name in parameters if name not in named)
        for name in named:
            owned = tuple(parameter for parameter in parameters if parameter == name)
            rows[name] = _row(name, state.uses[name], owned, follow, batch)
        if rest or len(used) == 1:
            module = state.modules.get(path)
            kind = type(module).__name__ if module is not None else "Parameter"
            use = state.uses[used[0]] if len(used) == 1 else Use(kind, "")
            rows[path] = _row(path, use, rest, follow, batch)
    for key, use in state.uses.items():
        if key.endswith(":"):
            row = _row(key.removesuffix(":"), use, (), follow, batch)
            known = rows.get(row.name, replace(row, products=()))
            rows[row.name] = replace(known, products=known.products + row.products)
    return list(rows.values())


def _tensors(state: Pass) -> dict[str, tuple[list[str], list[str]]]:
    """{module: its parameters, its parameters and buffers that are multiplied}."""
    found: dict[str, tuple[list[str], list[str]]] = {}
    for name in state.stored:
        owned, used = name not in state.buffers, name in state.uses
        if owned or used:
            parameters, multiplied = found.setdefault(name.rpartition(".")[0] or name, ([], []))
            parameters.extend([name] if owned else [])
            multiplied.extend([name] if used else [])
    return found


def _row(name: str, use: Use, parameters: tuple[str, ...], follow: Follow, batch: int) -> LayerCost:
    return LayerCost(
        name=name,
        type=use.type,
        parameters=parameters,
        weight=use.weight,
        positions=use.positions // batch,
        out_dim=use.out_dim,
        in_dim=use.in_dim,
        groups=use.groups,
        products=_products(use, follow, batch),
    )


def _products(use: Use, follow: Follow, batch: int) -> tuple[Product, ...]:
    """One for each set of extents; extents that nothing cuts are part of the number."""
    times: dict[tuple[Extent, ...], int] = {}
    for number, vectors in use.products:
        extents = []
        for vector in vectors:
            extent = Extent(len(vector), follow(vector))
            if extent.follows:
                extents.append(extent)
            else:
                number *= extent.length
        times[tuple(extents)] = times.get(tuple(extents), 0) + number
    return tuple(Product(number // batch, key) for key, number in times.items() if number)
