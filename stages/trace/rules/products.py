"""Products of tensors that forward computed: matmul, einsum, attention."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from math import prod

from stages.trace.propagate.label_pass import Pass
from stages.trace.propagate.label_values import Activation, Argument, Bound, Parameter, Result
from stages.trace.rules.computed_weights import product
from stages.trace.rules.contraction import Letters, Term, contract
from stages.trace.rules.equation import letters_of
from stages.trace.rules.layers import matrix
from stages.trace.rules.pointwise import meet
from stages.trace.rules.torch_count import torch_count

_TENSORS = (Activation, Parameter)


def matmul(state: Pass, bound: Bound) -> Result:
    """Activation @ matrix is a linear layer, anything else a sum over the inner dimension."""
    left, right = list(bound.values())[:2]
    if isinstance(right, Parameter) and len(right.shape) == 2 and isinstance(left, Activation):
        return matrix(state, left, right, None, row=1)
    if isinstance(left, Parameter) and isinstance(right, Parameter) and len(right.shape) < 3:
        return product(state, bound)
    return _result(state, bound, _matmul(state, bound, 0))


def plus_matmul(state: Pass, bound: Bound) -> Result:
    """addmm and baddbmm: a product, and what is added to it."""
    added, left, right = list(bound.values())[:3]
    if isinstance(right, Parameter) and len(right.shape) == 2 and isinstance(left, Activation):
        return matrix(state, left, right, added, row=1)
    product = _matmul(state, bound, 1)
    if product is None or not isinstance(added, _TENSORS):
        return _result(state, bound, None)
    return meet(state, [product.value, added], product.value.shape)


def _matmul(state: Pass, bound: Bound, position: int) -> Term | None:
    """The product of the arguments at a position and the next; None where labels cannot tell."""
    (one, left), (other, right) = list(bound.items())[position : position + 2]
    ranks = [len(value.shape) if isinstance(value, _TENSORS) else 0 for value in (left, right)]
    if min(ranks) < 1:
        return None
    # numbered from the right, as broadcasting goes
    batch: list[Hashable] = list(range(2 - max(ranks), 0))
    of_left = [*batch, "row", "inner"][-ranks[0] :] if ranks[0] > 1 else ["inner"]
    of_right = [*batch, "inner", "column"][-ranks[1] :] if ranks[1] > 1 else ["inner"]
    out = [*batch, *["row"][: ranks[0] - 1], *["column"][: ranks[1] - 1]]
    terms = [_term(state, one, left, of_left), _term(state, other, right, of_right)]
    counted: Letters | None = [*out, "inner"]
    if min(ranks) < 2:  # vectors torch counts as it likes
        counted = _as_torch(state, bound, terms, [*out, "inner"])
    return None if counted is None else contract(state, terms, out, counted)


def einsum(state: Pass, bound: Bound) -> Result:
    """Sums of products of one or two tensors by an equation.

    Those of more are frozen: which pairs torch multiplies first, and so how often, depends on
    their sizes.
    """
    values = bound["tensors"]
    if len(values) > 2 or not all(isinstance(value, _TENSORS) for value in values):
        state.count_product(torch_count(state.call.target, bound))
        return state.stuck(bound, "multiplies more than two tensors")
    inputs, out = letters_of(bound["equation"], [len(value.shape) for value in values])
    refs = state.call.argument("tensors")
    terms = [
        Term(value, letters, state.zeros.at(ref, state.call))
        for value, letters, ref in zip(values, inputs, refs, strict=True)
    ]
    alone = set(inputs[0]) ^ set(inputs[-1])  # summed before anything is multiplied
    every = dict.fromkeys([*inputs[0], *inputs[-1]])
    multiplied = [letter for letter in every if letter in out or letter not in alone]
    counted = _as_torch(state, bound, terms, multiplied)
    product = None if counted is None else contract(state, terms, out, counted)
    return _result(state, bound, product)


def attention(state: Pass, bound: Bound) -> Result:
    """scaled_dot_product_attention: the channels of the values pass, those of queries and keys
    are tied where the scale is given; torch's own depends on their number.
    """
    values = [bound[name] for name in ("query", "key", "value")]
    if not all(isinstance(value, _TENSORS) for value in values):
        return state.stuck(bound, "attends to no tensors")
    batch: list[Hashable] = list(range(2 - max(len(value.shape) for value in values), 0))
    query, key, value = (
        _term(state, name, bound[name], [*batch, *letters][-len(bound[name].shape) :])
        for name, letters in (
            ("query", ("query", "inner")),
            ("key", ("key", "inner")),
            ("value", ("key", "width")),
        )
    )
    if len({size for term in (query, key) for size in term.value.shape[-3:-2]} - {1}) > 1:
        return _result(state, bound, None)  # several queries' heads share one of the keys
    if bound.get("scale") is None:
        for term in (query, key):
            _freeze_last(state, term.value, "its scale depends on the number of channels")
    found = [*batch, "query", "key"]
    scores: Argument = contract(state, [query, key], found, [*found, "inner"]).value
    if isinstance(bound.get("attn_mask"), _TENSORS):
        scores = meet(state, [scores, bound["attn_mask"]], scores.shape)
    _freeze_last(state, scores, "attention weights mix channels")
    weights = Term(scores, found)
    out = [*batch, "query", "width"]
    return _result(state, bound, contract(state, [weights, value], out, [*found, "width"]))


def _freeze_last(state: Pass, value: Argument, text: str) -> None:
    if isinstance(value, Activation) and value.dim == len(value.shape) - 1:
        state.labels.freeze(value.vector, state.why(text))


def _term(state: Pass, name: str, value: Activation | Parameter, letters: Letters) -> Term:
    return Term(value, letters, state.zeros.at(state.call.argument(name), state.call))


def _as_torch(
    state: Pass, bound: Bound, terms: Sequence[Term], letters: Sequence[Hashable]
) -> Letters | None:
    """The letters that torch multiplies along: these, or none; None where it is something else."""
    total = torch_count(state.call.target, bound)
    sizes: dict[Hashable, int] = {}
    for term in terms:
        for letter, size in zip(term.letters, term.value.shape, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 0))
    if total in (0, prod(sizes[letter] for letter in letters)):
        return letters if total else []
    return None


def _result(state: Pass, bound: Bound, product: Term | None) -> Result:
    if product is None:
        state.count_product(torch_count(state.call.target, bound))
        return state.stuck(bound, "multiplies activations")
    if product.zero:
        state.zeros.mark(state.call)
    return product.value


RULES = {
    **dict.fromkeys(("matmul", "mm", "bmm"), matmul),
    **dict.fromkeys(("addmm", "baddbmm"), plus_matmul),
    "einsum": einsum,
    "scaled_dot_product_attention": attention,
}  # fmt: skip
