"""What candidates share is computed once, and to the last bit what it would have been."""

from __future__ import annotations

import pickle

import pytest
import torch
from search_nets import problem
from torch import Tensor, nn

from stages.search.evaluation.shared_prefix import SharedPrefix


class Counted(nn.Conv2d):
    """A convolution that counts its runs."""

    runs = 0

    def forward(self, x: Tensor) -> Tensor:
        self.runs += 1
        return super().forward(x)


def chain(*between: nn.Module) -> tuple[nn.Sequential, list[Counted]]:
    torch.manual_seed(0)
    layers = [Counted(3, 3, 3, padding=1) for _ in range(3)]
    head, *tail = layers
    net = nn.Sequential(head, *between, nn.Sequential(*tail))
    return net.eval(), layers


def answers(net: nn.Module, prefix: SharedPrefix, x: Tensor, changed: nn.Module) -> Tensor:
    with torch.no_grad(), prefix.of(net, [changed]):
        return net(x)


def test_only_what_follows_a_change_runs_again() -> None:
    net, layers = chain()
    x = torch.randn(2, 3, 8, 8)
    prefix = SharedPrefix([x])
    answers(net, prefix, x, layers[2])
    for at, runs in ((2, [0, 0, 1]), (1, [0, 1, 1]), (2, [0, 0, 1]), (0, [1, 1, 1])):
        before = layers[at].weight.detach().clone()
        nn.init.normal_(layers[at].weight)
        wanted = net(x)
        for layer in layers:
            layer.runs = 0
        assert torch.equal(answers(net, prefix, x, layers[at]), wanted)
        assert [layer.runs for layer in layers] == runs
        layers[at].weight.data = before
    assert not any("forward" in module.__dict__ for module in net.modules())


def test_other_inputs_are_not_answered_for() -> None:
    net, layers = chain()
    x = torch.randn(2, 3, 8, 8)
    prefix = SharedPrefix([x])
    answers(net, prefix, x, layers[2])
    other = torch.randn(2, 3, 8, 8)
    assert torch.equal(answers(net, prefix, other, layers[2]), net(other))
    x.mul_(2)
    assert torch.equal(answers(net, prefix, x, layers[2]), net(x))


def test_what_is_written_to_in_place_is_computed_again() -> None:
    class Negative(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.neg_()

    net, layers = chain(Negative())
    x = torch.randn(2, 3, 8, 8)
    prefix = SharedPrefix([x])
    for _ in range(3):
        assert torch.equal(answers(net, prefix, x, layers[2]), net(x))


def test_no_more_is_kept_than_allowed() -> None:
    net, layers = chain()
    x = torch.randn(2, 3, 8, 8)
    prefix = SharedPrefix([x], max_bytes=x.numel() * 4)
    for _ in range(2):
        assert torch.equal(answers(net, prefix, x, layers[2]), net(x))
    assert len(prefix.answers) == 1
    assert prefix.room == 0


@pytest.mark.parametrize("branches", [False, True])
def test_entries_of_a_loss_table_are_the_same_to_the_last_bit(branches: bool) -> None:
    ready = problem(images=60, branches=branches)
    space, plain, quick = ready.space, ready.table_evaluator(), ready.table_evaluator()
    assert quick.alike
    plain.alike = False
    rows = [space.sizes]
    for _ in range(2):
        rows += [space.moved(space.sizes, g, space.floors[g]) for g in range(len(space))]
        rows += [space.moved(space.sizes, places[0], 0) for places in space.branches]
    for counts in rows:
        assert quick(counts).score == plain(counts).score
    again = pickle.loads(pickle.dumps(quick))
    assert again(rows[1]).score == plain(rows[1]).score
