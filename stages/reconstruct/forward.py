"""The order in which forward applies its weights, read from one run on few images.

    conv1.weight ─▶ bn1.running_mean ─▶ conv2.weight ─▶ bn2.running_mean ─▶ + conv1's map ─▶ …
    call 1          call 2              call 4          call 5              call 6

Calls are numbered, so that a second run of the same network, or of a cut one, can be met at the
same places.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pipeline.channels.surgery import named_tensors
from stages.reconstruct.operators import LinearMap, Norm, read

ADDITIONS = {"add", "add_", "__add__", "__radd__", "__iadd__"}


@dataclass(frozen=True)
class Use:
    """One application of a weight, or of a batch norm's running mean.

    Attributes:
        name: canonical name of that tensor. turn: how often it was applied before. call: number in
        the pass. space: output positions of one sample, () for a linear layer on vectors.
        unknowns, groups: of the least-squares problem; 0 for a batch norm.
        bias: its name, or "". norm: the batch norm that alone consumes the result, or None.
        partner: the earlier call whose result is added to this one's right behind; -1: none.
    """

    name: str
    turn: int
    call: int
    kind: str
    space: tuple[int, ...] = ()
    unknowns: int = 0
    groups: int = 0
    bias: str = ""
    norm: NormNames | None = None
    partner: int = -1


@dataclass(frozen=True)
class NormNames:
    """Canonical names of a batch norm's tensors; `weight` is "" where it has none."""

    mean: str
    var: str
    weight: str
    eps: float


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

    def turns(self, name: str) -> int:
        """How often `name` is applied."""
        return sum(use.name == name for use in self.uses)


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
        if not results:
            return out
        value = _Value(getattr(func, "__name__", ""), operands=makers, shape=tuple(results[0].shape))
        self._values[number] = value
        for maker in makers:
            if maker in self._values:
                self._values[maker].users.append(number)
        for tensor in results:
            self._maker[id(tensor)] = number
            self._alive.append(tensor)
            self.largest = max(self.largest, tensor.numel() * tensor.element_size())
        if op is not None and self._named(op):
            self.found.append((number, op, tuple(out.shape)))
        else:
            self._note_others(given, value.func)
        return out

    def _named(self, op: LinearMap | Norm) -> str:
        return self.name(op.weight if isinstance(op, LinearMap) else op.mean)

    def _note_others(self, given: list[Tensor], func: str) -> None:
        for tensor in given:
            if name := self.name(tensor):
                self.elsewhere.setdefault(name, func)

    def uses(self) -> Iterator[Use]:
        """Every application, with what stands right behind it."""
        turns: dict[str, int] = {}
        norms = {number: op for number, op, _ in self.found if isinstance(op, Norm)}
        for number, op, shape in self.found:
            name = self._named(op)
            turn = turns.get(name, 0)
            turns[name] = turn + 1
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
                op.groups,
                self.name(op.bias),
                self._norm_names(norm) if norm else None,
                self._partner(number, behind if norm else number),
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
