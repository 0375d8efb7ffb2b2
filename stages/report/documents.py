"""What the page is made of: the documents of a run, read and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Document = Mapping[str, Any]


@dataclass(frozen=True)
class RunDocuments:
    """The JSON documents of a run; of stages that every round has, those of the last one.

    Attributes:
        trials: lines of trials.jsonl.
        rounds: of all rounds, in order.
        manifests: of every stage but the report itself, by its name in the run.
    """

    data: Document
    train: Document
    graph: Document
    rotation: Document
    plan: Document
    search: Document
    front: Document
    trials: Sequence[Document]
    cut: Document
    reconstruction: Document
    distillation: Document
    parity: Document
    quantization: Document
    benchmark: Document
    rounds: Sequence[RoundDocuments]
    manifests: Mapping[str, Document]


@dataclass(frozen=True)
class RoundDocuments:
    """The artefacts of one round: search.json, prune.json, distill.json."""

    search: Document
    cut: Document
    distillation: Document
