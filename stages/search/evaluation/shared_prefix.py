"""What candidates share with the network they are cut from, computed once.

An entry of the loss table changes one group. Up to the first layer that this touches, every module
sees what it saw before and gives what it gave:

    images ─▶ block 0 ─▶ block 1 ─▶ block 2 (cut) ─▶ …
              answered   answered   runs             runs

A module is answered for only where nothing in it was changed, and where its one input is a tensor
that was seen before, by identity and untouched since; so answers are the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

MAX_BYTES = 1 << 30  # of answers


@dataclass(frozen=True)
class _Known:
    """A tensor, and how often it had been written to when it was seen."""

    tensor: Tensor
    version: int

    @property
    def untouched(self) -> bool:
        return self.tensor._version == self.version


class SharedPrefix:
    """Answers of the modules of one network, for some inputs that are always the same tensors.

    Tensors of inference mode have no versions: networks must run under `no_grad`.
    """

    def __init__(self, inputs: Collection[Tensor], max_bytes: int = MAX_BYTES) -> None:
        self.known = {id(tensor): _Known(tensor, tensor._version) for tensor in inputs}
        self.answers: dict[tuple[int, int], _Known] = {}
        self.room = max_bytes

    @contextmanager
    def of(self, network: nn.Module, changed: Collection[nn.Module]) -> Iterator[None]:
        """Within it, `network` answers from memory what none of the changed modules is part of."""
        wrapped = list(_unchanged(network, {id(module) for module in changed}))
        for module in wrapped:
            # what is set on the object comes before the method of its class
            module.__dict__["forward"] = self._answering(module, module.forward)
        try:
            yield
        finally:
            for module in wrapped:
                del module.__dict__["forward"]

    def _answering(self, module: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        def answered(*args: Any, **kwargs: Any) -> Any:
            seen = self.known.get(id(args[0])) if len(args) == 1 and not kwargs else None
            if seen is None or not seen.untouched:
                return forward(*args, **kwargs)
            key = id(module), id(args[0])
            found = self.answers.get(key)
            if found is not None and found.untouched:
                return found.tensor
            out = forward(*args)
            # a module that writes to its input gives another answer the next time
            if isinstance(out, Tensor) and out is not args[0] and seen.untouched:
                self._remember(key, out)
            return out

        return answered

    def _remember(self, key: tuple[int, int], out: Tensor) -> None:
        size = out.numel() * out.element_size()
        if size <= self.room and key not in self.answers:
            self.room -= size
            self.answers[key] = self.known[id(out)] = _Known(out, out._version)


def _unchanged(module: nn.Module, changed: Collection[int]) -> Iterator[nn.Module]:
    """The largest modules within this one that hold none of the changed ones."""
    for child in module.children():
        if "forward" in child.__dict__:  # somebody else's
            continue
        if any(id(part) in changed for part in child.modules()):
            yield from _unchanged(child, changed)
        else:
            yield child
