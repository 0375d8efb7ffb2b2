"""Which channels have a free basis, read from the calls of one forward pass.

    expand ◀──┐              ┌──▶ expand ─ relu ─ project ─ norm ─┐
              │              │                                    │
    project ─ norm ── trunk ─┴────────────────────────────────── + ── trunk ──▶ expand

A trunk is what additions tie together. Its layers write whole vectors of channels and read whole
vectors; between them nothing looks at a channel alone. So any invertible matrix may stand between
writers and readers, and its inverse before the readers undoes it. One call that does look, such as
a relu, a depthwise convolution or a concatenation, closes the trunk.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

from stages.trace.capture.calls import Call, Capture, Ref, flatten


@dataclass(frozen=True)
class WriterNorm:
    """Canonical names of the tensors of a batch norm with running statistics, and its ε."""

    mean: str
    var: str
    weight: str
    bias: str
    eps: float


@dataclass(frozen=True)
class Writer:
    """A convolution or linear layer whose outputs are channels of a trunk; `bias` "" for none."""

    weight: str
    bias: str = ""
    norm: WriterNorm | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All its tensors that have a slice for each channel."""
        norm = self.norm
        of_norm = (norm.mean, norm.var, norm.weight, norm.bias) if norm else ()
        return tuple(name for name in (self.weight, self.bias, *of_norm) if name)


@dataclass
class Trunk:
    """Channels that share a basis.

    Attributes:
        readers: weights of the convolutions and linear layers it goes into. reason: why its basis
        is not free; "" where it is.
    """

    size: int
    writers: list[Writer] = field(default_factory=list)
    readers: list[str] = field(default_factory=list)
    reason: str = ""


def find_trunks(capture: Capture) -> list[Trunk]:
    """Every trunk that a layer of the network writes, closed ones included."""
    found = _Pass(capture)
    for call in capture.calls:
        found.step(call)
    for ref in capture.outputs:
        found.close(ref, "it is an output of the network")
    for ref in capture.written:
        found.close(ref, "it is kept in a buffer")
    return [trunk for trunk in found.trunks() if trunk.writers]


@dataclass(frozen=True)
class _Value:
    """A tensor whose dimension `dim` counts channels of trunk number `trunk`."""

    trunk: int
    dim: int


class _Pass:
    def __init__(self, capture: Capture) -> None:
        self.shapes: dict[Ref, tuple[int, ...]] = {
            Ref(source.index): source.shape for source in capture.inputs if source.shape
        }
        read = [leaf for call in capture.calls for leaf in _refs(call)]
        self.users = Counter([*read, *capture.outputs])
        self.names = {
            Ref(source.index): source.name
            for source in capture.inputs
            # of a weight that is applied twice, one use may be in another basis
            if source.kind == "parameter" and self.users[Ref(source.index)] == 1
        }
        self.values: dict[Ref, _Value] = {}
        self.bare: set[Ref] = set()  # results of layers: a norm may belong to the layer
        self.found: list[Trunk] = []
        self.parents: list[int] = []

    def trunks(self) -> list[Trunk]:
        """Those that no other has taken up."""
        return [t for number, t in enumerate(self.found) if self.parents[number] == number]

    def step(self, call: Call) -> None:
        """Follow channels through one call, or close what goes into it."""
        for item, shape in enumerate(call.shapes):
            if shape is not None:
                self.shapes[Ref(call.index, item if call.returns_list else None)] = shape
        rule = _RULES.get(call.name.removesuffix("_"))
        value = rule(self, call) if rule else None
        if value is not None:
            self.values[Ref(call.index)] = value
            return
        for ref in _refs(call):
            self.close(ref, f"{call.where} does not treat its channels alike")

    def close(self, ref: Ref, reason: str) -> None:
        """The basis of what this tensor holds is not free; the first reason stands."""
        if (value := self.values.get(ref)) is not None:
            trunk = self.trunk(value)
            trunk.reason = trunk.reason or reason

    def trunk(self, value: _Value) -> Trunk:
        """The trunk that a value belongs to by now."""
        return self.found[self._root(value.trunk)]

    def new(self, size: int, writer: Writer) -> int:
        """Number of a trunk with one writer."""
        self.found.append(Trunk(size, [writer]))
        self.parents.append(len(self.parents))
        return self.parents[-1]

    def unite(self, one: _Value, other: _Value) -> None:
        """Two trunks are one from now on."""
        a, b = sorted((self._root(one.trunk), self._root(other.trunk)))
        if a == b:
            return
        whole, part = self.found[a], self.found[b]
        self.parents[b] = a
        whole.writers += part.writers
        whole.readers += part.readers
        whole.reason = whole.reason or part.reason

    def _root(self, number: int) -> int:
        while self.parents[number] != number:
            number = self.parents[number]
        return number

    def operand(self, call: Call, at: int = 0) -> tuple[Any, _Value | None, tuple[int, ...]]:
        """A positional argument, the channels it holds, and its shape."""
        ref = call.args[at] if len(call.args) > at else None
        if not isinstance(ref, Ref):
            return ref, None, ()
        return ref, self.values.get(ref), self.shapes.get(ref, ())


def _refs(call: Call) -> Iterator[Ref]:
    yield from (leaf for leaf in flatten((call.args, call.kwargs)) if isinstance(leaf, Ref))


def _layer(state: _Pass, call: Call) -> _Value | None:
    """A convolution or linear layer: it reads one trunk and begins another."""
    _, value, shape = state.operand(call)
    linear = call.name == "linear"
    weight, bias = (call.argument(name) for name in ("weight", "bias"))
    own = weight in state.names and (bias is None or bias in state.names)
    dims = len(shape) if linear else len(state.shapes.get(weight, ()))
    channel_dim = dims - 1 if linear else 1
    if not own or len(shape) != dims or (not linear and call.argument("groups") != 1):
        return None
    if value is not None:
        if value.dim != channel_dim:
            return None
        state.trunk(value).readers.append(state.names[weight])
    writer = Writer(state.names[weight], "" if bias is None else state.names[bias])
    ref = Ref(call.index)
    state.bare.add(ref)
    return _Value(state.new(state.shapes[weight][0], writer), channel_dim)


def _norm(state: _Pass, call: Call) -> _Value | None:
    """A batch norm right behind a layer belongs to that layer."""
    ref, value, _ = state.operand(call)
    given = [call.argument(name) for name in ("running_mean", "running_var", "weight", "bias")]
    alone = ref in state.bare and state.users[ref] == 1
    if value is None or not alone or call.argument("training"):
        return None
    if not all(tensor in state.names for tensor in given):
        return None
    trunk = state.trunk(value)
    mean, var, weight, bias = (state.names[tensor] for tensor in given)
    norm = WriterNorm(mean, var, weight, bias, call.argument("eps"))
    trunk.writers[0] = replace(trunk.writers[0], norm=norm)
    return value


def _sum(state: _Pass, call: Call) -> _Value | None:
    (_, one, a), (_, other, b) = state.operand(call), state.operand(call, 1)
    if one is None or other is None or isinstance(call.argument("alpha"), Ref):
        return None
    # of shapes that are broadcast, channels must lie over channels
    if len(a) != len(b) or one.dim != other.dim or a[one.dim] != b[other.dim]:
        return None
    state.unite(one, other)
    return one


def _scaled(state: _Pass, call: Call) -> _Value | None:
    factor = call.args[1] if len(call.args) > 1 else None
    return state.operand(call)[1] if type(factor) in (int, float) else None


def _same(state: _Pass, call: Call) -> _Value | None:
    return state.operand(call)[1]


def _dropout(state: _Pass, call: Call) -> _Value | None:
    return None if call.argument("train") else state.operand(call)[1]


def _spatial(state: _Pass, call: Call) -> _Value | None:
    """Pooling by means, or resizing: over the `n` dimensions that the name ends with."""
    _, value, shape = state.operand(call)
    behind = int(call.name[-2])
    return value if value and value.dim == len(shape) - behind - 1 else None


def _mean(state: _Pass, call: Call) -> _Value | None:
    _, value, shape = state.operand(call)
    dims = call.argument("dim")
    if value is None or not isinstance(dims, (list, tuple)) or not dims:
        return None
    gone = {dim % len(shape) for dim in dims}
    if value.dim in gone:
        return None
    shift = 0 if call.argument("keepdim") else sum(dim < value.dim for dim in gone)
    return replace(value, dim=value.dim - shift)


def _view(state: _Pass, call: Call) -> _Value | None:
    """The channels lie where as many elements are before them, if that dimension has their size."""
    _, value, shape = state.operand(call)
    after = call.shapes[0]
    if value is None or after is None or shape[value.dim] == 1:
        return None
    before = prod(shape[: value.dim])
    for dim, size in enumerate(after):
        if prod(after[:dim]) == before and size == shape[value.dim]:
            return replace(value, dim=dim)
    return None


def _permute(state: _Pass, call: Call) -> _Value | None:
    _, value, shape = state.operand(call)
    dims = call.argument("dims")
    if value is None or dims is None:
        return None
    return replace(value, dim=[dim % len(shape) for dim in dims].index(value.dim))


def _pad(state: _Pass, call: Call) -> _Value | None:
    _, value, shape = state.operand(call)
    pads, number = call.argument("pad"), call.argument("value")
    if value is None or pads is None or number not in (None, 0):
        return None
    return value if value.dim < len(shape) - len(pads) // 2 else None


def _named(rule: Callable[..., _Value | None], names: Iterable[str]) -> dict[str, Any]:
    return dict.fromkeys(names, rule)


_RULES: dict[str, Callable[[_Pass, Call], _Value | None]] = {
    **_named(_layer, ("conv1d", "conv2d", "conv3d", "linear")),
    **_named(_sum, ("add", "sub")),
    **_named(_scaled, ("mul", "div")),
    **_named(_same, ("alias", "clone", "contiguous", "detach", "neg")),
    **_named(_dropout, ("dropout", "feature_dropout")),
    **_named(_spatial, (f"{kind}avg_pool{n}d" for kind in ("", "adaptive_") for n in (1, 2, 3))),
    **_named(_spatial, (f"upsample_{kind}d" for kind in ("nearest2", "bilinear2", "bicubic2"))),
    **_named(_mean, ("mean", "sum")),
    **_named(_view, ("flatten", "view", "reshape", "squeeze", "unsqueeze")),
    **_named(_permute, ("permute",)),
    **_named(_pad, ("pad", "constant_pad_nd")),
    "batch_norm": _norm,
}
"""Operators by name, without the underscore of those that work in place."""
