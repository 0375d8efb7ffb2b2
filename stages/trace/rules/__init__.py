"""What each ATen operator does to labels. An operator that no table names freezes what it
touches, with the reason.
"""

from __future__ import annotations

import torch

from stages.trace.capture.calls import Call
from stages.trace.propagate.label_pass import Pass
from stages.trace.propagate.label_values import Bound, Result
from stages.trace.rules import (
    computed_weights,
    layers,
    norms,
    pointwise,
    positions,
    products,
    spatial,
    split_cat,
    views,
)
from stages.trace.rules.contract import Rule
from stages.trace.rules.torch_count import torch_count

RULES: dict[str, Rule] = {
    **pointwise.RULES,
    **views.RULES,
    **split_cat.RULES,
    **positions.RULES,
    **layers.RULES,
    **products.RULES,
    **norms.RULES,
    **computed_weights.RULES,
    **spatial.RULES,
}


def rule_for(call: Call) -> Rule:
    """The operator's own rule, that of its out-of-place twin, the element-wise rule by torch's
    tag, or `unknown`.
    """
    if call.name in RULES:
        return RULES[call.name]
    if call.name.endswith("_") and call.name[:-1] in RULES:
        return RULES[call.name[:-1]]
    # tags of other libraries are not relied on
    if "::" not in call.name and torch.Tag.pointwise in getattr(call.target, "tags", ()):
        return pointwise.pointwise
    return unknown


def unknown(state: Pass, bound: Bound) -> Result:
    """No rule: sound because nothing that goes in is ever cut; what it multiplies, torch knows."""
    state.count_product(torch_count(state.call.target, bound))
    return state.stuck(bound, "no rule for this operator")
