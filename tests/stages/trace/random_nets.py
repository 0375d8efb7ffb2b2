"""Random networks: a stack of blocks, each one of the topologies, on (N, C, H, W)."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from random_forms import FORMS, Forms
from torch import nn
from torch.nn import functional as F

Spec = list[tuple[str, int]]

TOPOLOGIES = (
    "conv", "stride", "grouped", "depthwise", "multiplier", "residual", "project", "concat",
    "self_concat", "gate", "glu", "shuffle", "squeeze_excite", "pixel", "group_norm",
    "instance_norm", "prelu", "scale", "shared", "three_sums", "transposed", "pad_shortcut",
    "spatial_gate", "slice", "stack", "layer_norm_mlp", "in_place", "channel_mean",
)  # fmt: skip

BLOCKS = (*TOPOLOGIES, *FORMS)

specs = st.lists(st.tuples(st.sampled_from(BLOCKS), st.integers(1, 4)), min_size=1, max_size=6)


class Block(Forms):
    """One topology or form on `c` channels; `out` is how many it leaves, `n` in 1 … 4 varies
    widths.
    """

    def __init__(self, kind: str, n: int, c: int) -> None:
        super().__init__()
        self.kind, self.n, self.c, self.out = kind, n, c, c
        build = getattr(self, f"_build_{kind}", None)
        if build:
            build()

    def forward(self, x):
        return getattr(self, f"_run_{self.kind}")(x)

    def conv(self, into, out, kernel=3, **options):
        return nn.Conv2d(into, out, kernel, padding=kernel // 2, **options)

    def _build_conv(self):
        self.out = 2 * self.n
        self.a, self.norm = self.conv(self.c, self.out), nn.BatchNorm2d(self.out)

    def _run_conv(self, x):
        return F.relu(self.norm(self.a(x)))

    def _build_stride(self):
        self.out = 2 * self.n
        self.a = self.conv(self.c, self.out, stride=2)

    def _run_stride(self, x):
        return F.hardswish(self.a(x))

    def _build_grouped(self):
        self.out = 4 * self.n
        self.a, self.b = (
            self.conv(self.c, 4 * self.n),
            self.conv(4 * self.n, 4 * self.n, groups=(2, 4)[self.n % 2]),
        )

    def _run_grouped(self, x):
        return self.b(F.silu(self.a(x)))

    def _build_depthwise(self):
        self.a = self.conv(self.c, self.c, groups=self.c)

    def _run_depthwise(self, x):
        return F.relu6(self.a(x))

    def _build_multiplier(self):
        self.out = 2 * self.c
        self.a = self.conv(self.c, self.out, groups=self.c, bias=False)

    _run_multiplier = _run_depthwise

    def _build_residual(self):
        self.a, self.b = self.conv(self.c, 2 * self.n), self.conv(2 * self.n, self.c)

    def _run_residual(self, x):
        return x + self.b(F.relu(self.a(x)))

    def _build_project(self):
        self.out = 2 * self.n
        self.a, self.b = self.conv(self.c, self.out), self.conv(self.c, self.out, 1)

    def _run_project(self, x):
        return F.relu(self.a(x) + self.b(x))

    def _build_concat(self):
        self.out = self.c + 2 * self.n
        self.a = self.conv(self.c, 2 * self.n)

    def _run_concat(self, x):
        return torch.cat([self.a(x), x], 1)

    def _build_self_concat(self):
        self.out = 2 * self.n
        self.a = self.conv(2 * self.c, self.out)

    def _run_self_concat(self, x):
        return self.a(torch.cat([x, x], 1))

    def _build_gate(self):
        self.out = 2 * self.n
        self.a = self.conv(self.c, 4 * self.n)

    def _run_gate(self, x):
        left, right = self.a(x).chunk(2, 1)
        return left * torch.tanh(right)

    _build_glu = _build_gate

    def _run_glu(self, x):
        return F.glu(self.a(x), 1)

    def _build_shuffle(self):
        self.out = 2 * self.n
        self.a = self.conv(self.c, self.out)

    def _run_shuffle(self, x):
        x = self.a(x)
        b, c, h, w = x.shape
        return x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)

    def _build_squeeze_excite(self):
        self.a, self.b = nn.Linear(self.c, self.n), nn.Linear(self.n, self.c)

    def _run_squeeze_excite(self, x):
        return x * torch.sigmoid(self.b(F.relu(self.a(x.mean((2, 3))))))[:, :, None, None]

    def _build_pixel(self):
        self.out = 4 * self.n
        self.a, self.b = self.conv(self.c, 4 * self.n), self.conv(self.n, self.n)

    def _run_pixel(self, x):
        return F.pixel_unshuffle(self.b(F.pixel_shuffle(self.a(x), 2)), 2)

    def _build_group_norm(self):
        self.out = 4 * self.n
        self.a, self.norm = self.conv(self.c, self.out), nn.GroupNorm(2 * self.n, self.out)

    _run_group_norm = _run_conv

    def _build_instance_norm(self):
        self.norm = nn.InstanceNorm2d(self.c, affine=self.n % 2 == 0)

    def _run_instance_norm(self, x):
        return self.norm(x)

    def _build_prelu(self):
        self.act = nn.PReLU(self.c)

    def _run_prelu(self, x):
        return self.act(x)

    def _build_scale(self):
        self.g = nn.Parameter(torch.rand(self.c, 1, 1) + 0.5)

    def _run_scale(self, x):
        return x * self.g

    def _build_shared(self):
        self.a = self.conv(self.c, self.c)

    def _run_shared(self, x):
        return self.a(F.relu(self.a(x)))

    def _build_three_sums(self):
        self.out = 2 * self.n
        self.a, self.b, self.d = (self.conv(self.c, self.out) for _ in range(3))

    def _run_three_sums(self, x):
        return self.a(x) + self.b(x) * self.d(x)

    def _build_transposed(self):
        self.out = 2 * self.n
        self.a = nn.ConvTranspose2d(
            self.c, self.out, 3, padding=1, groups=2 if self.c % 2 == 0 else 1
        )

    def _run_transposed(self, x):
        return F.elu(self.a(x))

    def _build_pad_shortcut(self):
        self.out = self.c + 2
        self.a = self.conv(self.c, self.out)

    def _run_pad_shortcut(self, x):
        return self.a(x) + F.pad(x, (0, 0, 0, 0, 1, 1))

    def _build_spatial_gate(self):
        self.a = self.conv(self.c, 1)

    def _run_spatial_gate(self, x):
        return x * torch.sigmoid(self.a(x))

    def _build_slice(self):
        self.out = 2 * self.n
        self.a = self.conv(self.c, 4 * self.n)

    def _run_slice(self, x):
        x = self.a(x)
        return x[:, : x.shape[1] // 2] - x[:, x.shape[1] // 2 :]

    def _build_stack(self):
        self.out = 2 * self.n
        self.a, self.b = self.conv(self.c, self.out), self.conv(self.c, self.out)

    def _run_stack(self, x):
        return torch.stack([self.a(x), self.b(x)], 1).softmax(1).sum(1)

    def _build_layer_norm_mlp(self):
        self.norm, self.a, self.b = (
            nn.LayerNorm(self.c),
            nn.Linear(self.c, 2 * self.n),
            nn.Linear(2 * self.n, self.c),
        )

    def _run_layer_norm_mlp(self, x):
        return x + self.b(F.gelu(self.a(self.norm(x.permute(0, 2, 3, 1))))).permute(0, 3, 1, 2)

    def _build_in_place(self):
        self.a = self.conv(self.c, self.c)

    def _run_in_place(self, x):
        x = self.a(x)
        x[:, :, 1:] *= 2
        return x.relu_()

    def _run_channel_mean(self, x):
        return x - x.mean(1, keepdim=True)


class RandomNet(nn.Module):
    """A first convolution, the blocks, global pooling or a flattened 2×2 map, a linear head."""

    def __init__(self, spec: Spec, flat: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        blocks, width = [], 4
        for kind, n in spec:
            blocks.append(Block(kind, n, width))
            width = blocks[-1].out
        self.blocks, self.flat = nn.Sequential(*blocks), flat
        self.head = nn.Linear(width * (4 if flat else 1), 3)

    def forward(self, x):
        return self.head(
            F.adaptive_avg_pool2d(self.blocks(F.relu(self.stem(x))), 2 if self.flat else 1).flatten(
                1
            )
        )
