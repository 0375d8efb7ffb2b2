"""The vocabulary of artefacts: kinds, file names, schema versions, who makes and who reads each.

A run is a folder; each stage commits one folder in it, and the stage's `manifest.json` is the
commit:

    artifacts/quickstart/
        run.json                      the resolved config
        pretrain/  model.json  model.safetensors  data.json  manifest.json
        trace/     graph.json  manifest.json
        ...
        round-1/   trace/ search/ prune/ distill/    only with `rounds` above 1; the last round lies above
"""

from __future__ import annotations

from dataclasses import dataclass

MANIFEST = "manifest.json"
RUN_FILE = "run.json"


@dataclass(frozen=True)
class Kind:
    """One kind of artefact.

    `files` lie in the folder of stage `maker`; a kind of several files is handed on as that folder,
    a kind of one file as the file. `max_bytes` caps every file before it is read.
    """

    name: str
    maker: str
    files: tuple[str, ...]
    schema_version: int
    max_bytes: int
    meaning: str


_MB = 1 << 20
_MODEL = ("model.json", "model.safetensors")

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            "data",
            "pretrain",
            ("data.json",),
            1,
            16 * _MB,
            "what the images are: classes, counts, content hash",
        ),
        Kind(
            "base_model",
            "pretrain",
            _MODEL,
            1,
            4096 * _MB,
            "the network as it came: the teacher and the baseline",
        ),
        Kind(
            "train",
            "pretrain",
            ("train.json",),
            1,
            64 * _MB,
            "how it was trained, or whose weights were adopted",
        ),
        Kind(
            "graph",
            "trace",
            ("graph.json",),
            1,
            256 * _MB,
            "channel groups, and why anything is frozen",
        ),
        Kind("plan", "search", ("plan.json",), 1, 256 * _MB, "the units that every group keeps"),
        Kind(
            "trials", "search", ("trials.jsonl",), 1, 1024 * _MB, "every candidate that was scored"
        ),
        Kind(
            "search",
            "search",
            ("search.json",),
            1,
            64 * _MB,
            "curve, controls and best of the search",
        ),
        Kind("pruned_model", "prune", _MODEL, 1, 4096 * _MB, "the network after the cut"),
        Kind(
            "cut",
            "prune",
            ("prune.json",),
            1,
            64 * _MB,
            "proof that cut equals masked; counts a layer",
        ),
        Kind("final_model", "distill", _MODEL, 1, 4096 * _MB, "the network after recovery"),
        Kind(
            "distillation",
            "distill",
            ("distill.json",),
            1,
            64 * _MB,
            "accuracy before and after, epoch by epoch",
        ),
        Kind(
            "onnx", "export", ("model.onnx",), 1, 2048 * _MB, "the final network, ready to deploy"
        ),
        Kind(
            "base_onnx",
            "export",
            ("base.onnx",),
            1,
            2048 * _MB,
            "the base network, exported the same way",
        ),
        Kind(
            "parity",
            "export",
            ("parity.json",),
            1,
            64 * _MB,
            "onnxruntime against PyTorch on real images",
        ),
        Kind(
            "benchmark",
            "benchmark",
            ("benchmark.json",),
            1,
            64 * _MB,
            "timings, intervals, test accuracy",
        ),
        Kind("report", "report", ("report.html",), 1, 64 * _MB, "the page for people"),
        Kind("summary", "report", ("summary.json",), 1, 16 * _MB, "the numbers for machines"),
    )
}


def kinds_of(stage: str) -> tuple[Kind, ...]:
    """Kinds that a stage makes; it makes the same ones in every round: `round-1/search` as
    `search`.
    """
    maker = stage.rpartition("/")[2]
    return tuple(kind for kind in KINDS.values() if kind.maker == maker)
