"""Groups of channels that live or die together, and the slices that each of their units owns.

In `y = bn(conv(x)); z = fc(y.flatten(1))` with 4 channels on a map of 1×2 pixels:

    conv.weight  dim 0   [ 0  1  2  3 ]                one row a unit
    bn.weight    dim 0   [ 0  1  2  3 ]                and bias, running_mean, running_var
    fc.weight    dim 1   [ 0 0  1 1  2 2  3 3 ]        two columns a unit

is one group called "conv", of size 4: removing unit 2 removes every slice marked 2. Its member
`fc.weight` has the indices (0, 1, 2, 3, 4, 5, 6, 7), two for each unit; as a table, one row a unit:

    UnitSlices("conv", "fc.weight", 1, [[0, 1], [2, 3], [4, 5], [6, 7]])
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Member(NamedTuple):
    """Slices of one parameter or buffer along one dimension.

    `indices` is unit-major: with `k = len(indices) // group.size` slices a unit, unit `u` owns
    `indices[u * k : (u + 1) * k]`.
    """

    parameter: str
    dim: int
    indices: tuple[int, ...]


class UnitSlices(NamedTuple):
    """A member as a table: row `u` of `indices`, (units, slices a unit) int64, is what unit `u` of
    `group` owns of `parameter` along `dim`.
    """

    group: str
    parameter: str
    dim: int
    indices: NDArray[np.int64]

    @property
    def per_unit(self) -> int:
        """Slices that one unit owns here."""
        return self.indices.shape[1]


@dataclass(frozen=True, repr=False)
class ChannelGroup:
    """Units with the same set of (parameter, dimension): one width of the network.

    Attributes:
        id: the module (or free parameter) that produces the channels first.
        size: units.
        members: the slices that the units own.
        prunable: False where all units must stay; `reason` says why.
        exact: False for groups that were opened on request although cutting them changes channel
            statistics (LayerNorm, GroupNorm).
        channels_per_unit: output channels of the first producer that a unit stands for: more than
            1 behind ties (grouped convolutions).
    """

    id: str
    size: int
    members: tuple[Member, ...]
    prunable: bool = True
    reason: str = ""
    exact: bool = True
    channels_per_unit: int = 1

    def __repr__(self) -> str:
        state = "prunable" if self.prunable else f"stays: {self.reason}"
        count = len(self.members)
        members = f"{count} member" + ("s" if count != 1 else "")
        return f"<ChannelGroup {self.id}: {self.size} units, {members}, {state}>"

    def tables(self) -> list[UnitSlices]:
        """One table a member; those of the same indices share them."""
        made = {id(m.indices): m.indices for m in self.members}
        shared = {key: np.array(value).reshape(self.size, -1) for key, value in made.items()}
        return [
            UnitSlices(self.id, m.parameter, m.dim, shared[id(m.indices)]) for m in self.members
        ]

    def slices(self, unit: int) -> list[tuple[str, int, tuple[int, ...]]]:
        """(parameter, dim, indices) of every slice that dies with `unit`."""
        return [(t.parameter, t.dim, tuple(t.indices[unit].tolist())) for t in self.tables()]
