"""What a candidate may be scored by; higher is better."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

Score = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(candidate's logits (N, C), original's logits (N, C), labels (N,)) -> scores (N,)."""


def divergence(candidate: Tensor, original: Tensor, labels: Tensor) -> Tensor:
    """-KL(original || candidate) of the class probabilities, (N,), in nats; 0 for equal outputs."""
    gap = F.log_softmax(original, 1) - F.log_softmax(candidate, 1)
    return -(F.softmax(original, 1) * gap).sum(1)


def log_likelihood(candidate: Tensor, original: Tensor, labels: Tensor) -> Tensor:
    """Log-probability of the true class, (N,), in nats."""
    return -F.cross_entropy(candidate, labels, reduction="none")


def correctness(candidate: Tensor, original: Tensor, labels: Tensor) -> Tensor:
    """1 where the true class comes first, else 0, (N,)."""
    return (candidate.argmax(1) == labels).to(candidate.dtype)


SCORES: dict[str, Score] = {
    "divergence": divergence,
    "likelihood": log_likelihood,
    "accuracy": correctness,
}
