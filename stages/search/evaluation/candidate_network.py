"""One network that takes the widths of any candidate, in milliseconds.

`stages.prune.prune` gives every cut network its own modules. A search looks at thousands of
candidates one after the other, so here one copy of the network is kept, and resizing it only puts
freshly sliced tensors into its modules and sets their width attributes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor, nn

from pipeline.channels.branch import Zeros
from pipeline.channels.graph import ChannelGraph
from pipeline.channels.rebuild import named_tensors, set_widths, slice_tensors
from pipeline.training.evaluate import device_of
from pipeline.training.small_convolutions import use_small_convolutions

Keep = Mapping[str, Sequence[int]]
"""{group id: kept unit indices, ascending}."""

_Slot = tuple[nn.Module, str, bool]
"""A module, the name of a tensor in it, and whether that is a parameter."""


class CandidateNetwork:
    """A copy of `model` that `resize` gives the widths of a candidate.

    Tensors that no candidate cuts are shared with `model` and never written.

    Args:
        model: the network that candidates are cut from.
        ids: groups that candidates may cut.
        refitted: canonical names of further tensors that `resize` may be given.

    Attributes:
        network: the copy; the same object at all times.
        changed: modules of it that differ from the original's since the last `resize`.
    """

    def __init__(
        self,
        model: nn.Module,
        graph: ChannelGraph,
        ids: Sequence[str],
        refitted: Iterable[str] = (),
    ) -> None:
        members = [member.parameter for group in ids for member in graph[group].members]
        uncut = {name: tensor.detach() for name, tensor in named_tensors(model).items()}
        self._graph = graph
        self._uncut = {name: uncut[name] for name in dict.fromkeys([*members, *refitted])}
        # gradients are wanted only in the copy of it that is distilled
        self.network = copy.deepcopy(model).requires_grad_(False)
        if device_of(model).type == "cpu":
            use_small_convolutions(self.network)
        self._slots = _slots(self.network, self._uncut)
        self._modules = dict(self.network.named_modules(remove_duplicate=False))
        self._widths = [
            width for width in graph.widths if any(group in ids for group, _ in width.follows)
        ]
        self._replaced: dict[str, nn.Module] = {}
        self.changed: list[nn.Module] = []

    def resize(self, keep: Keep, tensors: Mapping[str, Tensor] | None = None) -> nn.Module:
        """The network as `prune(model, graph, ChannelPlan.of(graph, keep))` would be, until the
        next call.

        Args:
            tensors: what a reconstruction of this cut gives, by canonical name at its new size;
                absent: slices.
        """
        sliced = slice_tensors(self._uncut, self._graph, keep) if tensors is None else tensors
        for name, slots in self._slots.items():
            for module, key, is_parameter in slots:
                if is_parameter:
                    data = sliced.get(name, self._uncut[name])
                    module._parameters[key] = nn.Parameter(data, requires_grad=False)
                else:  # running statistics are written in place, hence a clone
                    module._buffers[key] = (
                        sliced[name] if name in sliced else self._uncut[name].clone()
                    )
        removed = {group: self._graph[group].size - len(units) for group, units in keep.items()}
        # all of them, not only those that lose something: the candidate before may have lost more
        set_widths(
            (self._modules[width.module], width.attribute, width.value - width.lost(removed))
            for width in self._widths
        )
        self._drop(keep)
        narrowed = [self._modules[w.module] for w in self._widths if w.lost(removed)]
        holders = [slot[0] for name in sliced for slot in self._slots.get(name, ())]
        self.changed = [*narrowed, *holders, *self._stand_ins()]
        return self.network

    def _stand_ins(self) -> list[nn.Module]:
        parts = (path.rpartition(".") for path in self._replaced)
        return [self._modules[parent]._modules[name] for parent, _, name in parts]

    def _drop(self, keep: Keep) -> None:
        """Put stand-ins where branches go, and the modules of the candidate before back."""
        places = self._replaced
        self._replaced = {}
        if going := self._graph.dropped(keep):
            zeros = self._graph.stand_ins(going, keep)
            self._replaced = {path: self._modules[path] for path in zeros}
            places = {**places, **{path: Zeros(*shape) for path, shape in zeros.items()}}
        for path, module in places.items():
            parent, _, name = path.rpartition(".")
            self._modules[parent]._modules[name] = module


def _slots(network: nn.Module, wanted: Mapping[str, Tensor]) -> dict[str, list[_Slot]]:
    """Where each wanted tensor stands; a shared one stands in several modules."""
    names = {id(tensor): name for name, tensor in named_tensors(network).items()}
    found: dict[str, list[_Slot]] = {name: [] for name in wanted}
    for module in network.modules():
        for tensors, are_parameters in ((module._parameters, True), (module._buffers, False)):
            for key, tensor in tensors.items():
                name = names.get(id(tensor))
                if name in found:
                    found[name].append((module, key, are_parameters))
    return found
