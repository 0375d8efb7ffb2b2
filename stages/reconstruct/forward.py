"""The order in which forward applies its weights, read from one run on few images.

    conv1.weight ─▶ bn1.running_mean ─▶ conv2.weight ─▶ bn2.running_mean ─▶ + conv1's map ─▶ …
    call 1          call 2              call 4          call 5              call 6

Calls are numbered, so that a second run of the same network, or of a cut one, can be met at the
same places.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pipeline.channels.named import named_tensors
from stages.reconstruct.operators import LinearMap, Norm, read

LIVE = 4  # activations of the largest size that a network holds at once: a DenseNet does
ADDITIONS = {"add", "add_", "__add__", "__radd__", "__iadd__"}


@dataclass(frozen=True)
class NormNames:
    """Canonical names of a batch norm's tensors; `weight` is "" where it has none."""

    mean: str
    var: str
    weight: str
    eps: float

    def gain(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """γ / σ (channels,): what a step of the input is worth behind the batch norm."""
        scale = (tensors[self.var].detach() + self.eps).rsqrt()
        return scale * tensors[self.weight].detach() if self.weight else scale


@dataclass(frozen=True)
class Use:
    """One application of a weight, or of a batch norm's running mean.

    Attributes:
        name: canonical name of that tensor. turn: how often it was applied before. call: number in
        the pass. space: output positions of one sample, () for a linear layer on vectors.
        groups: systems of the layer. unknowns: of each, taps times input channels; 0 for a norm.
        bias: its name, or "". norm: the batch norm that alone consumes the result, or None.
        partner: the earlier call whose result is added to this one's right behind; -1: none.
        whole: `call` in the network with all its branches; -1: this is that network.
    """

    name: str
    turn: int
    call: int
    kind: str
    space: tuple[int, ...] = ()
    unknowns: int = 0
    taps: int = 0
    groups: int = 0
    bias: str = ""
    norm: NormNames | None = None
    partner: int = -1
    whole: int = -1

    @property
    def place(self) -> int:
        """Number in the pass of the whole network: the same whatever branches are missing."""
        return self.call if self.whole < 0 else self.whole

    @property
    def depthwise(self) -> bool:
        """Whether each group has one input channel, so that cuts take whole groups."""
        return self.groups > 1 and self.unknowns == self.taps

    @property
    def free_mean(self) -> bool:
        """Whether a constant added to its result can be taken up: by a bias, or a batch norm."""
        return bool(self.bias) or self.norm is not None


@dataclass(frozen=True)
class Forward:
    """What a network does with its weights.

    Attributes:
        uses: in execution order. elsewhere: {parameter: function} for other users of a parameter.
        image_bytes: the largest activation of one sample.
    """

    uses: tuple[Use, ...]
    elsewhere: dict[str, str]
    image_bytes: int

    def affordable(self, max_bytes: int) -> int:
        """Samples whose activations fit into half of `max_bytes`."""
        return max_bytes // 2 // max(1, LIVE * self.image_bytes)

    @cached_property
    def names(self) -> dict[str, int]:
        """How often each weight and running mean is applied."""
        return dict(Counter(use.name for use in self.uses))

    def turns(self, name: str) -> int:
        """How often `name` is applied."""
        return self.names[name]

    @cached_property
    def partners(self) -> dict[int, int]:
        """{call whose result is wanted again: the last call that wants it}."""
        return {use.partner: use.call for use in self.uses if use.partner >= 0}

    def first(self, name: str) -> Use:
        """Its first application."""
        return next(use for use in self.uses if use.name == name)

    def within(self, smaller: Forward) -> Forward:
        """The uses that a network without some branches has as well."""
        left = {(use.name, use.turn) for use in smaller.uses}
        return replace(self, uses=tuple(u for u in self.uses if (u.name, u.turn) in left))

    def met_in(self, smaller: Forward) -> Forward:
        """The same uses at the places where that network comes by them."""
        places = {(use.name, use.turn): use for use in smaller.uses}
        uses = []
        for use in self.within(smaller).uses:
            there = places[use.name, use.turn]
            partner = there.partner if use.partner >= 0 else -1
            uses.append(replace(use, call=there.call, partner=partner, whole=use.place))
        return replace(self, uses=tuple(uses))


class Listener(TorchFunctionMode):
    """Numbers the calls of a forward pass and hands each to `call`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.names = {id(tensor): name for name, tensor in named_tensors(model).items()}
        self.number = 0

    def name(self, tensor: Tensor | None) -> str:
        """Canonical name of a parameter or buffer; "" for anything else."""
        return self.names.get(id(tensor), "") if tensor is not None else ""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        # x.shape is a call here as well: numbers are places in a run, and no count of operators
        self.number += 1
        return self.call(func, args, kwargs or {})

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Called in place of `func`."""
        return func(*args, **kwargs)


def survey(model: nn.Module, inputs: tuple[Any, ...]) -> Forward:
    """Run `model`, in eval mode, on `inputs` of a few samples."""
    listener = _Survey(model)
    with torch.no_grad(), listener:
        model(*inputs)
    samples = max(1, len(inputs[0]))
    return Forward(tuple(listener.uses()), listener.elsewhere, listener.largest // samples)


@dataclass
class _Value:
    """What is known of one call's result."""

    func: str
    users: list[int] = field(default_factory=list)
    operands: tuple[int, ...] = ()
    shape: tuple[int, ...] = ()


class _Survey(Listener):
    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.found: list[tuple[int, LinearMap | Norm, tuple[int, ...]]] = []
        self.elsewhere: dict[str, str] = {}
        self.largest = 0
        self._values: dict[int, _Value] = {}
        self._maker: dict[int, int] = {}
        self._alive: list[Tensor] = []  # so that no id is given twice

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        number, op = self.number, read(func, args, kwargs)
        given = list(_tensors((args, kwargs)))
        makers = tuple(self._maker.get(id(tensor), -1) for tensor in given)
        out = func(*args, **kwargs)
        results = list(_tensors(out))
        if not results:  # x.shape is no user of x
            return out
        value = _Value(
            getattr(func, "__name__", ""), operands=makers, shape=tuple(results[0].shape)
        )
        self._values[number] = value
        for maker in makers:
            if maker in self._values:
                self._values[maker].users.append(number)
        for tensor in results:
            self._maker[id(tensor)] = number
            self._alive.append(tensor)
            self.largest = max(self.largest, tensor.numel() * tensor.element_size())
        if op is not None and self.name(op.named):
            self.found.append((number, op, tuple(out.shape)))
        else:
            self._note_others(given, value.func)
        return out

    def _note_others(self, given: list[Tensor], func: str) -> None:
        for tensor in given:
            if name := self.name(tensor):
                self.elsewhere.setdefault(name, func)

    def uses(self) -> Iterator[Use]:
        """Every application, with what stands right behind it."""
        turns: Counter[str] = Counter()
        total = Counter(self.name(op.named) for _, op, _ in self.found)
        norms = {number: op for number, op, _ in self.found if isinstance(op, Norm)}
        for number, op, shape in self.found:
            name = self.name(op.named)
            turn = turns[name]
            turns[name] += 1
            if isinstance(op, Norm):
                yield Use(name, turn, number, "norm")
                continue
            behind = self._only_user(number)
            norm = norms.get(behind)
            yield Use(
                name,
                turn,
                number,
                op.kind,
                shape[2:] if op.channel_dim == 1 else shape[1:-1],
                op.matrix().shape[-1],
                op.taps,
                op.groups,
                self.name(op.bias),
                self._norm_names(norm) if norm else None,
                # one weight cannot make up for several branches
                self._partner(number, behind if norm else number) if total[name] == 1 else -1,
            )

    def _only_user(self, number: int) -> int:
        users = self._values[number].users
        return users[0] if len(users) == 1 else -1

    def _partner(self, number: int, last: int) -> int:
        """What is added to the result of call `last`, if it is there before call `number`."""
        addition = self._only_user(last)
        if addition < 0 or self._values[addition].func not in ADDITIONS:
            return -1
        others = [maker for maker in self._values[addition].operands if maker != last]
        if len(others) != 1 or not 0 <= others[0] < number:
            return -1
        alike = self._values[others[0]].shape == self._values[number].shape
        return others[0] if alike else -1

    def _norm_names(self, norm: Norm) -> NormNames:
        return NormNames(
            self.name(norm.mean), self.name(norm.var), self.name(norm.weight), norm.eps
        )


def _tensors(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, Mapping):
        yield from _tensors(list(tree.values()))
    elif isinstance(tree, (list, tuple)):
        for item in tree:
            yield from _tensors(item)
