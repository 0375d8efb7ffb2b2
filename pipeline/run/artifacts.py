"""The vocabulary of artefacts: kinds, file names, who makes and who reads each.

A run is a folder; each stage commits one folder in it, and the stage's `manifest.json` is the
commit:

    artifacts/quickstart/
        run.json                      the resolved config
        pretrain/  model.json  model.safetensors  data.json  manifest.json
        trace/     graph.json  manifest.json
        ...
        round-1/   trace/ … distill/  only with `rounds` above 1
"""

from __future__ import annotations

from typing import Any

from pipeline.run.documents import Document, Kind, Lines, Sealed

_MB = 1 << 20
_NUMBER = (int, float)
_LIST = (list, tuple)  # a tuple before it is written

RUN = Sealed(
    "run", "", ("run.json",), 16 * _MB, "the resolved config", {"config": dict, "config_name": str}
)
MANIFEST = Sealed(
    "manifest",
    "",
    ("manifest.json",),
    16 * _MB,
    "what went into a stage and what came out",
    {
        "stage": str,
        "stage_version": int,
        "seed": int,
        "config": dict,
        "inputs": dict,
        "external": dict,
        "data": str,
        "outputs": dict,
        "summary": dict,
        "versions": dict,
        "device": str,
        "started": str,
        "duration_s": _NUMBER,
        "accepted_edits": _LIST,
    },
)

MODEL = Document(
    "model",
    "",
    ("model.json",),
    64 * _MB,
    "how a network is rebuilt",
    {"source": str, "weights": dict},
)
TRIALS = Lines(
    "trials",
    "search",
    ("trials.jsonl",),
    1024 * _MB,
    "every candidate that was scored",
    schema_version=5,  # an interrupted search does not go on from the lines of an older one
)
_NETWORK = (MODEL.file, "model.safetensors")
_TRITON = ("config.pbtxt", "labels.txt", "1/model.onnx")

_KINDS: tuple[Kind, ...] = (
    Document(
        "data",
        "pretrain",
        ("data.json",),
        16 * _MB,
        "what the images are: classes, counts, content hash",
        {"label": str, "classes": _LIST, "image_shape": _LIST, "counts": dict, "sha256": str},
    ),
    Kind(
        "base_model", "pretrain", _NETWORK, 4096 * _MB, "the original network: teacher and baseline"
    ),
    Document(
        "train",
        "pretrain",
        ("train.json",),
        64 * _MB,
        "how it was trained, or whose weights were adopted",
        {"how": str, "search_accuracy": _NUMBER, "images": dict},
    ),
    Document(
        "graph",
        "trace",
        ("graph.json",),
        256 * _MB,
        "channel groups, and why anything is frozen",
        {"groups": _LIST, "widths": _LIST, "layers": _LIST, "parameters": dict},
    ),
    Kind(
        "rotated_model",
        "rotate",
        _NETWORK,
        4096 * _MB,
        "the same function, with components for the channels of linear trunks",
    ),
    Document(
        "rotation",
        "rotate",
        ("rotation.json",),
        64 * _MB,
        "which groups were rotated, the variance of each component, and why others were not",
        {"groups": _LIST, "left": dict, "difference": _NUMBER},
    ),
    Document(
        "plan",
        "search",
        ("plan.json",),
        256 * _MB,
        "the units that every group keeps, and the branches that go",
        {"keep": dict, "metadata": dict},
        matters=("keep", "drop"),  # not how it was found: another search may find it again
        schema_version=2,  # one that drops branches is another network to who ignores them
    ),
    TRIALS,
    Document(
        "search",
        "search",
        ("search.json",),
        64 * _MB,
        "curve, controls and best of the search",
        {"budget": dict, "base": dict, "best": dict, "strategies": _LIST, "groups": _LIST},
    ),
    Document(
        "front",
        "search",
        ("front.json",),
        64 * _MB,
        "what every budget costs in accuracy: plans from the loss table, measured or predicted",
        {"metric": str, "original": dict, "points": _LIST},
    ),
    Kind("pruned_model", "prune", _NETWORK, 4096 * _MB, "the network after the cut"),
    Document(
        "cut",
        "prune",
        ("prune.json",),
        64 * _MB,
        "proof that cut equals masked; counts a layer",
        {"proof": dict, "macs": dict, "params": dict, "layers": dict},
    ),
    Kind(
        "reconstructed_model",
        "reconstruct",
        _NETWORK,
        4096 * _MB,
        "the cut network with weights by least squares",
    ),
    Document(
        "reconstruction",
        "reconstruct",
        ("reconstruct.json",),
        64 * _MB,
        "error of every layer before and after, accuracy before and after",
        {"accuracy": dict, "kept": str, "layers": _LIST},
    ),
    Kind("final_model", "distill", _NETWORK, 4096 * _MB, "the network after recovery"),
    Document(
        "distillation",
        "distill",
        ("distill.json",),
        64 * _MB,
        "accuracy before and after, epoch by epoch",
        {"mode": str, "search_accuracy": dict, "kept": str},
    ),
    # 2 GB is the most that one protobuf file holds
    Kind("onnx", "export", ("model.onnx",), 2048 * _MB, "the final network, ready to deploy"),
    Kind("base_onnx", "export", ("base.onnx",), 2048 * _MB, "the original, exported the same way"),
    Document(
        "parity",
        "export",
        ("parity.json",),
        64 * _MB,
        "onnxruntime against PyTorch on real images",
        {"images": int, "base": dict, "final": dict},
    ),
    Kind(
        "onnx_int8",
        "quantize",
        ("model_int8.onnx",),
        2048 * _MB,
        "the final network in INT8, delivered where quantize.json says so",
        optional=True,
    ),
    Kind(
        "base_onnx_int8",
        "quantize",
        ("base_int8.onnx",),
        2048 * _MB,
        "the original in INT8: what one would get without pruning",
        optional=True,
    ),
    Kind(
        "onnx_fp16",
        "quantize",
        ("model_fp16.onnx",),
        2048 * _MB,
        "the final network in fp16, delivered where quantize.json says so",
        optional=True,
    ),
    Kind(
        "base_onnx_fp16",
        "quantize",
        ("base_fp16.onnx",),
        2048 * _MB,
        "the original in fp16: what one would get without pruning",
        optional=True,
    ),
    Document(
        "quantization",
        "quantize",
        ("quantize.json",),
        64 * _MB,
        "which INT8 scheme is fast and accurate here, what was tried, fp16, and what is delivered",
        {"mode": str, "chosen": str, "reason": str, "tried": _LIST, "base": dict},
    ),
    Document(
        "benchmark",
        "benchmark",
        ("benchmark.json",),
        64 * _MB,
        "timings, intervals, test accuracy",
        {
            "settings": _LIST,
            "base": dict,
            "final": dict,
            "data": dict,
            "machine": dict,
            "variants": _LIST,
            "remarks": _LIST,
        },
    ),
    Kind("deployed", "deploy", ("model.onnx",), 2048 * _MB, "the network to hand over"),
    Kind(
        "deployed_fp32",
        "deploy",
        ("model_fp32.onnx",),
        2048 * _MB,
        "the same in float32, where there are both",
        optional=True,
    ),
    Kind(
        "deployed_int8",
        "deploy",
        ("model_int8.onnx",),
        2048 * _MB,
        "the same in INT8, where there are both",
        optional=True,
    ),
    Kind(
        "deployed_fp16",
        "deploy",
        ("model_fp16.onnx",),
        2048 * _MB,
        "the same in fp16, where it was made",
        optional=True,
    ),
    Kind(
        "deployed_uint8",
        "deploy",
        ("model_uint8.onnx",),
        2048 * _MB,
        "the network to hand over, from pixels to probabilities",
    ),
    Kind("labels", "deploy", ("labels.txt",), 16 * _MB, "class names, by index"),
    Kind(
        "hugging_face",
        "deploy",
        ("config.json", "preprocessor_config.json"),
        64 * _MB,
        "what transformers and Optimum read",
    ),
    Kind(
        "triton",
        "deploy",
        tuple(f"triton/classifier/{name}" for name in _TRITON),
        2048 * _MB,
        "a repository for NVIDIA Triton",
    ),
    Kind("script", "deploy", ("predict.py",), 16 * _MB, "ranked labels without rlp"),
    Kind("model_card", "deploy", ("README.md",), 16 * _MB, "what it is, and what was measured"),
    Kind("report", "report", ("report.html",), 64 * _MB, "the page for people"),
    Document(
        "summary",
        "report",
        ("summary.json",),
        16 * _MB,
        "the numbers for machines",
        {
            "run": str,
            "data": dict,
            "base": dict,
            "final": dict,
            "variants": _LIST,
            "speedup": dict,
            "parity": dict,
            "remarks": _LIST,
            "report": str,
            "onnx": str,
            "deploy": str,
        },
    ),
)
LARGEST_DOCUMENT = max(kind.max_bytes for kind in _KINDS if isinstance(kind, Document))
KINDS: dict[str, Kind] = {kind.name: kind for kind in _KINDS}


def known_document(found: Any) -> Document | None:
    """The kind that a JSON file says it is; None where it says none of ours."""
    kind = found.get("kind") if isinstance(found, dict) else None
    known = (*_KINDS, RUN, MANIFEST, MODEL)
    return next((k for k in known if isinstance(k, Document) and k.name == kind), None)


def document(kind: str) -> Document:
    """The kind of this name, which is a JSON document."""
    found = KINDS[kind]
    assert isinstance(found, Document), f"{kind} is no document"
    return found


def kinds_of(stage: str) -> tuple[Kind, ...]:
    """Kinds that a stage makes; it makes the same ones in every round: `round-1/search` as
    `search`.
    """
    maker = stage.rpartition("/")[2]
    return tuple(kind for kind in KINDS.values() if kind.maker == maker)
