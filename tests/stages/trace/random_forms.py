"""Blocks of random networks that real networks trip over: sizes kept as attributes, parameters cut
up for several uses, caches filled on first use, modules under several names, unequal shares,
products over positions.

Each `_build_*` finds `c` channels and sets `out` where it leaves another number; `n` varies widths.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

FORMS = (
    "split_width", "split_sizes", "partial", "blur", "view_half", "own_group_norm",
    "weight_chunk", "weight_slices", "weight_view", "weight_columns", "bias_chunk", "weight_sum",
    "cache_attribute", "cache_dict", "cache_buffer", "cache_width", "cache_list",
    "registered_twice", "used_on_both", "shared_weight", "shared_norm",
    "some_twice", "every_other", "multiplied", "rolled", "three_widths",
    "context", "attention", "values", "einsum_gate", "einsum_mix",
    "by_width", "padded_by_width", "branch_by_width", "unused", "no_channels",
)  # fmt: skip


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape) / 3)


def conv(into: int, out: int, kernel: int = 1, **options: int) -> nn.Conv2d:
    return nn.Conv2d(into, out, kernel, padding=kernel // 2, **options)


class Attributes(nn.Module):
    """Sizes that forward reads from the module."""

    c: int
    n: int
    out: int

    def _build_split_width(self):
        self.width, self.out = self.n + 1, 2 * (self.n + 1)
        self.a, self.b = conv(self.c, self.out), conv(self.width, self.width, 3)

    def _run_split_width(self, x):
        left, right = self.a(x).split(self.width, 1)
        return torch.cat([left, self.b(right)], 1)

    def _build_split_sizes(self):
        self.sizes, self.out = [self.n, 2, self.n + 1], 2 * self.n + 3
        self.a, self.b = conv(self.c, self.out), conv(2, 2, 3)

    def _run_split_sizes(self, x):
        one, two, three = torch.split(self.a(x), self.sizes, 1)
        return torch.cat([three, one, self.b(two)], 1)

    def _build_partial(self):
        self.part = max(self.c // 2, 1)
        self.a = conv(self.part, self.part, 3)

    def _run_partial(self, x):
        return torch.cat([self.a(x[:, : self.part]), x[:, self.part :]], 1)

    def _build_blur(self):
        self.channels = self.c
        self.register_buffer("kernel", torch.rand(1, 1, 3, 3))

    def _run_blur(self, x):
        kernel = self.kernel.expand(self.channels, 1, 3, 3)
        return F.conv2d(x, kernel, groups=self.channels, padding=1)

    def _build_view_half(self):
        self.half, self.out = self.n + 1, 2 * (self.n + 1)
        self.a = conv(self.c, self.out)

    def _run_view_half(self, x):
        x = self.a(x)
        b, _, h, w = x.shape
        return x.view(b, 2, self.half, h, w).transpose(1, 2).reshape(b, -1, h, w)

    def _build_own_group_norm(self):
        self.groups, self.out = self.n, 4 * self.n
        self.a, self.g, self.h = conv(self.c, self.out), parameter(self.out), parameter(self.out)

    def _run_own_group_norm(self, x):
        return F.group_norm(self.a(x), self.groups, self.g, self.h)


class Weights(nn.Module):
    """One parameter for several uses."""

    def _build_weight_chunk(self):
        self.w, self.out = parameter(2 * self.n, self.c, 1, 1), 2 * self.n

    def _run_weight_chunk(self, x):
        return torch.cat([F.conv2d(x, w) for w in self.w.chunk(2)[::-1]], 1)

    def _build_weight_slices(self):
        self.w, self.out = parameter(2 * self.n + 1, self.c, 1, 1), self.n

    def _run_weight_slices(self, x):
        return F.conv2d(x, self.w[: self.n]) * F.conv2d(x, self.w[self.n + 1 :]).tanh()

    def _build_weight_view(self):
        self.w, self.out = parameter(2 * self.n, self.c, 1, 1), self.n

    def _run_weight_view(self, x):
        one, two = self.w.view(2, -1, *self.w.shape[1:]).unbind(0)
        return F.conv2d(x, one) + F.conv2d(x, two).relu()

    def _build_weight_columns(self):
        self.a, self.w, self.out = conv(self.c, 2 * self.n), parameter(3, 2 * self.n, 1, 1), 3

    def _run_weight_columns(self, x):
        parts = zip(self.a(x).chunk(2, 1), self.w.chunk(2, 1), strict=True)
        return sum(F.conv2d(y.sin(), w) for y, w in parts)

    def _build_bias_chunk(self):
        self.g = parameter(2 * self.c)

    def _run_bias_chunk(self, x):
        scale, shift = self.g.view(1, -1, 1, 1).chunk(2, 1)
        return x * scale + shift

    def _build_weight_sum(self):
        self.w, self.v, self.out = parameter(5, self.c, 1, 1), parameter(5, self.c, 1, 1), 5

    def _run_weight_sum(self, x):
        return F.conv2d(x, self.w + 2 * self.v)


class Caches(nn.Module):
    """Tensors that the first forward makes and later ones find."""

    def _ramp(self, x):
        return torch.linspace(0.5, 1.5, x.shape[3], dtype=x.dtype, device=x.device)

    def _run_cache_attribute(self, x):
        if getattr(self, "kept", None) is None:
            self.kept = self._ramp(x)
        return x * self.kept

    def _build_cache_dict(self):
        self.table = {}

    def _run_cache_dict(self, x):
        key = x.shape[3], x.device, x.dtype
        if key not in self.table:
            self.table[key] = self._ramp(x)
        return x + self.table[key]

    def _run_cache_buffer(self, x):
        if not hasattr(self, "grid"):
            self.register_buffer("grid", self._ramp(x), persistent=False)
        return x - self.grid

    def _build_cache_width(self):
        self.table = {}

    def _run_cache_width(self, x):
        if x.shape[1] not in self.table:
            self.table[x.shape[1]] = x.new_full((1, x.shape[1], 1, 1), 0.5)
        return x * self.table[x.shape[1]]

    def _build_cache_list(self):
        self.seen = []

    def _run_cache_list(self, x):
        self.seen.append(x)
        return self.seen[-1] * 2


class Shared(nn.Module):
    """Modules and parameters under several names, used several times."""

    def _build_registered_twice(self):
        self.a = self.b = nn.Sequential(conv(self.c, self.c), nn.BatchNorm2d(self.c), nn.PReLU())

    def _run_registered_twice(self, x):
        return self.b(self.a(x))

    def _build_used_on_both(self):
        self.a, self.b, self.out = conv(self.c, self.c, 3), conv(self.c, 2 * self.n), 2 * self.n

    def _run_used_on_both(self, x):
        return self.b(x) + self.b(self.a(x).relu())

    def _build_shared_weight(self):
        self.a, self.b, self.out = conv(self.c, 2 * self.n), conv(self.c, 2 * self.n), 4 * self.n
        self.b.weight = self.a.weight

    def _run_shared_weight(self, x):
        return torch.cat([self.a(x), self.b(x).sigmoid()], 1)

    def _build_shared_norm(self):
        self.a, self.b, self.out = conv(self.c, 4), conv(4, 4), 4
        self.norm = self.other = nn.BatchNorm2d(4)

    def _run_shared_norm(self, x):
        return self.other(self.b(self.norm(self.a(x)).relu()))


class Shares(nn.Module):
    """Units of one layer that own different numbers of slices further on."""

    def _build_some_twice(self):
        self.a, self.out = conv(self.c, self.n + 2), self.n + 4

    def _run_some_twice(self, x):
        x = self.a(x)
        return torch.cat([x, x[:, :2]], 1)

    def _build_every_other(self):
        self.a, self.out = conv(self.c, 2 * self.n), 3 * self.n

    def _run_every_other(self, x):
        x = self.a(x)
        return torch.cat([x[:, ::2], x], 1)

    def _build_multiplied(self):
        self.a, self.b = conv(self.c, self.c), conv(self.c, 3 * self.c, groups=self.c)
        self.out = 4 * self.c

    def _run_multiplied(self, x):
        return torch.cat([self.a(x), self.b(x)], 1)

    def _build_rolled(self):
        self.a = conv(self.c, self.c)

    def _run_rolled(self, x):
        return self.a(x).roll(1, 1) + x.flip(1)

    def _build_three_widths(self):
        self.a, self.b, self.d = (conv(self.c, self.n + k) for k in range(3))
        self.e, self.out = conv(3 * self.n + 3, self.c), self.c

    def _run_three_widths(self, x):
        return x + self.e(torch.cat([self.d(x), self.a(x), self.b(x)], 1).relu())


class Products(nn.Module):
    """Products of activations that are summed over positions."""

    def _build_context(self):
        self.a = conv(self.c, 1)

    def _run_context(self, x):
        weights = self.a(x).flatten(2).softmax(-1).transpose(1, 2)
        return x + (x.flatten(2) @ weights).unsqueeze(-1)

    def _build_attention(self):
        self.a, self.b, self.out = conv(self.c, 3), conv(self.c, 2 * self.n), 2 * self.n

    def _run_attention(self, x):
        scores = F.adaptive_avg_pool2d(self.a(x), 2).flatten(2)
        scores = (scores.transpose(1, 2) @ scores).softmax(-1)
        values = F.adaptive_avg_pool2d(self.b(x), 2).flatten(2).transpose(1, 2)
        return (scores @ values).transpose(1, 2).unflatten(2, (2, 2))

    def _build_values(self):
        self.a, self.b, self.out = conv(self.c, 8), conv(self.c, 4 * self.n), 4 * self.n

    def _run_values(self, x):
        x = F.adaptive_avg_pool2d(x, 2)
        keys, values = (
            y.flatten(2).unflatten(1, (2, -1)).transpose(2, 3) for y in (self.a(x), self.b(x))
        )
        found = F.scaled_dot_product_attention(keys, keys, values)
        return found.transpose(2, 3).flatten(1, 2).unflatten(2, (2, 2))

    def _build_einsum_gate(self):
        self.g = parameter(self.c)

    def _run_einsum_gate(self, x):
        return torch.einsum("bchw,c->bchw", x, self.g)

    def _build_einsum_mix(self):
        self.g, self.out = parameter(2 * self.n, self.c), 2 * self.n

    def _run_einsum_mix(self, x):
        return torch.einsum("bchw,oc->bohw", x, self.g)


class Numbers(nn.Module):
    """Numbers that forward computes from a width, and layers that reach no output."""

    def _build_by_width(self):
        self.a = conv(self.c, self.c)

    def _run_by_width(self, x):
        return self.a(x) / x.shape[1] ** 0.5

    def _run_padded_by_width(self, x):
        pad = x.shape[1] // 4
        return F.pad(x, [pad, pad, 0, 0])

    def _run_branch_by_width(self, x):
        return x.sigmoid() if x.shape[1] % 3 else x.tanh()

    def _build_unused(self):
        self.a, self.b = conv(self.c, 3), conv(3, self.c)

    def _run_unused(self, x):
        self.b(self.a(x))
        return x.abs()

    def _build_no_channels(self):
        self.a = conv(self.c, self.c)

    def _run_no_channels(self, x):
        return torch.cat([self.a(x), x[:, self.c :]], 1)


class Forms(Attributes, Weights, Caches, Shared, Shares, Products, Numbers):
    """All of them."""
