"""Shape formulas against PyTorch's own shapes, and that PyTorch is asked wherever they do not
apply.
"""

from __future__ import annotations

import pytest
import torch

from stages.trace.capture import meta_shapes

aten = torch.ops.aten


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


X = meta(2, 6, 9, 7)
KNOWN = {
    "conv2d": (X, meta(8, 6, 3, 3), meta(8), [1, 1], [1, 1]),
    "conv2d strided": (X, meta(8, 6, 3, 2), None, [2, 3], [1, 0], [1, 2]),
    "conv2d grouped": (X, meta(12, 3, 2, 2), None, [1, 1], [0, 0], [1, 1], 2),
    "linear": (meta(2, 5, 6), meta(4, 6), meta(4)),
    "add": (X, meta(2, 6, 9, 7)),
    "mul": (X, meta(2, 6, 1, 1)),
    "mul both broadcast": (meta(2, 1, 9, 7), meta(2, 6, 1, 7)),
    "adaptive_avg_pool2d": (X, [1, 3]),
    "cat": ([X, meta(2, 3, 9, 7), X], 1),
    "cat from the end": ([X, meta(2, 6, 9, 1)], -1),
    "add a number": (X, 1),
    "div": (X, meta(2, 6, 9, 7)),
    "sub both broadcast": (meta(2, 1, 9, 7), meta(2, 6, 1, 7)),
    "add_": (X, meta(2, 6, 9, 7)),
    "mul_ by a number": (X, 0.5),
    "mean": (X, [2, 3]),
    "mean of all": (X,),
    "mean kept": (X, [-1, 1], True),
    "sum": (X, [0]),
    "max_pool2d": (X, [3, 2], [2, 2], [1, 0]),
    "max_pool2d with holes": (X, [3, 3], [2, 1], [1, 1], [2, 2]),
    "max_pool2d of its own stride": (X, [2, 3]),
    "avg_pool2d": (X, [3, 3], [2, 2], [1, 1], False, False),
    "mul of fewer dimensions": (X, meta(6, 1, 1)),
    "amax": (X, [1], True),
    "sqrt": (X,),
    "upsample_bilinear2d": (X, [4, 20], True, None),
    "upsample_nearest2d": (X, [18, 14], None),
    "var": (X, [2, 3], False, True),
    "linalg_vector_norm": (X, 2, [1, 2], True),
    "matmul": (X, meta(2, 6, 7, 3)),
    "matmul of two": (meta(2, 3), meta(3, 4)),
    "zeros_like": (X,),
    "new_zeros": (X, [2, 5]),
    "silu": (X,),
    "relu_": (X,),
}
ASKED = {
    "conv2d other width": (X, meta(8, 5, 3, 3)),
    "conv2d other bias": (X, meta(8, 6, 3, 3), meta(7), [1, 1], [1, 1]),
    "conv2d same": (X, meta(8, 6, 3, 3), None, [1, 1], "same"),
    "conv2d one image": (meta(6, 9, 7), meta(8, 6, 3, 3)),
    "conv2d map too small": (X, meta(8, 6, 11, 11)),
    "linear other width": (meta(2, 5), meta(4, 6)),
    "linear other bias": (meta(2, 6), meta(4, 6), meta(3)),
    "add other width": (X, meta(2, 5, 9, 7)),
    "add other type": (X, meta(2, 6, 9, 7, dtype=torch.float64)),
    "add a number to integers": (meta(2, 3, dtype=torch.int64), 1.5),
    "div integers": (meta(2, 3, dtype=torch.int64), meta(2, 3, dtype=torch.int64)),
    "add_ more": (meta(2, 1, 9, 7), X),
    "max_pool2d up": (X, [2, 2], [2, 2], [0, 0], [1, 1], True),
    "avg_pool2d one image": (meta(6, 9, 7), [2, 2]),
    "mean twice": (X, [2, -2]),
    "mul of other dimensions": (X, meta(5, 1, 1)),
    "sqrt of integers": (meta(2, 3, dtype=torch.int64),),
    "upsample_nearest2d by factors": (X, None, [2.0, 2.0]),
    "upsample_bilinear2d of other strides": (X.transpose(2, 3), [4, 20], True, None),
    "var unbiased": (X, False),
    "linalg_vector_norm as float64": (X, 2, None, False, torch.float64),
    "matmul of other width": (X, meta(2, 6, 8, 3)),
    "matmul with one": (X, meta(7, 3)),
    "sum of integers": (meta(2, 3, dtype=torch.int64), [1]),
    "add a real tensor": (X, torch.zeros(2, 6, 9, 7)),
    "cat other height": ([X, meta(2, 3, 8, 7)], 1),
    "cat other type": ([X, meta(2, 3, 9, 7, dtype=torch.float64)], 1),
}


@pytest.mark.parametrize("case", KNOWN)
def test_formula_is_what_pytorch_says(case: str) -> None:
    name = case.split()[0]
    found, expected = meta_shapes.result(name, KNOWN[case], {}), getattr(aten, name)(*KNOWN[case])
    assert found is not None
    assert (found.shape, found.dtype, found.device) == (
        expected.shape,
        expected.dtype,
        expected.device,
    )


@pytest.mark.parametrize("case", ASKED)
def test_anything_else_is_left_to_pytorch(case: str) -> None:
    assert meta_shapes.result(case.split()[0], ASKED[case], {}) is None


def test_order_of_strides_is_kept() -> None:
    last = X.to(memory_format=torch.channels_last)
    assert meta_shapes.like(last).stride() == last.stride()
    assert meta_shapes.like(X[:, :2]).is_contiguous()
