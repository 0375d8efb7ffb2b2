"""What a rule is: the only thing an operator needs to take part in tracing."""

from __future__ import annotations

from typing import Protocol

from stages.trace.propagate.label_pass import Pass
from stages.trace.propagate.label_values import Bound, Result


class Rule(Protocol):
    """How one ATen operator carries labels from its arguments to its results.

    A rule reads `bound`, the arguments by schema name, and `state.call`, the recorded call with the
    shapes of its results. It may tie, freeze and attach labels through `state`. It returns one
    value for each result, of exactly the recorded shape.

    A rule is sound when, for every set of units, the operator on the cut arguments gives what the
    operator on the silenced whole arguments gives, less the slices of the units that were cut.
    Where it cannot vouch for that it returns `state.stuck(arguments, text)`: everything that
    arrives stays, with the reason.

    For the element-wise sum of two activations of 4 channels,

        bound    {"self": Activation(dim 1, labels 1 2 3 4), "other": Activation(dim 1, 5 6 7 8)}
        state    ties 1 to 5, 2 to 6, 3 to 7, 4 to 8
        result   Activation(dim 1, labels 1 2 3 4)
    """

    def __call__(self, state: Pass, bound: Bound, /) -> Result: ...
