"""`rlp quantize MODEL.onnx --calibration IMAGES`: the INT8 form of any classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline import console
from pipeline.cli.common import command

KEYS = (
    *("chosen", "reason", "scheme", "accuracy", "parity", "speed", "float_nodes", "tried"),
    *("calibration", "machine", "file", "seconds", "out"),
)

_MEASURED = ("accuracy", "same class", "error", "ratio")


def register(app: typer.Typer) -> None:
    command(app, "quantize", keys=KEYS)(quantize)


_Model = Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="A float32 classifier.")]
_Calibration = Annotated[
    Path,
    typer.Option(
        "--calibration",
        metavar="IMAGES",
        help="Folder of images like those it was trained on; labels are not needed.",
    ),
]
_Search = Annotated[
    Path | None,
    typer.Option(
        "--search",
        metavar="IMAGES",
        help="Labelled images to choose on; a fifth of the calibration images where those are "
        "labelled.",
    ),
]
_Out = Annotated[
    Path | None,
    typer.Option("-o", "--out", metavar="OUT", help="Default: MODEL_int8.onnx beside MODEL.onnx."),
]
_Mode = Annotated[
    str, typer.Option("--mode", help="auto, or int8: exit 1 where INT8 costs more than allowed.")
]
_Drop = Annotated[
    float,
    typer.Option("--max-accuracy-drop", min=0, help="Points of accuracy that INT8 may cost."),
]
_Images = Annotated[int, typer.Option("--images", min=1, help="Most calibration images used.")]
_Size = Annotated[
    int | None, typer.Option("--size", min=1, help="Image size, where the file leaves it open.")
]
_Mean = Annotated[
    str | None,
    typer.Option(
        "--mean", metavar="R,G,B", help="Of pixels 0..1; default: the file's or ImageNet's."
    ),
]
_Std = Annotated[str | None, typer.Option("--std", metavar="R,G,B", help="It goes with --mean.")]
_Provider = Annotated[str, typer.Option("--provider", help="Execution provider that is timed.")]
_Batch = Annotated[int, typer.Option("--batch", min=1, help="Images a call that is timed.")]
_Threads = Annotated[
    int, typer.Option("--threads", min=0, help="Intra-op threads timed, 0 for all cores.")
]


def quantize(
    model: _Model,
    calibration: _Calibration,
    search: _Search = None,
    out: _Out = None,
    mode: _Mode = "auto",
    max_accuracy_drop: _Drop = 0.5,
    images: _Images = 256,
    size: _Size = None,
    mean: _Mean = None,
    std: _Std = None,
    provider: _Provider = "cpu",
    batch: _Batch = 1,
    threads: _Threads = 1,
) -> dict[str, Any]:
    """Write the INT8 form that is fastest here within what accuracy may cost, and say whether to
    use it.

    Types, operators and calibrators are chosen by what is measured on this machine. The model is
    opened in child processes and never changed.
    """
    from pipeline.errors import UsageError
    from stages.benchmark.setting import Setting
    from stages.quantize import Allowance, quantize_onnx
    from stages.quantize.outside import outside_images

    target = out or model.with_name(f"{model.stem}_int8.onnx")
    if mode not in ("auto", "int8"):
        raise UsageError(f"--mode {mode}: auto or int8", hint="auto says when INT8 does not pay")
    if target.resolve() == model.resolve():
        raise UsageError(f"{target} is the model itself", hint="give another file with -o")
    found = outside_images(
        model, calibration, search, size=size, mean=_numbers("mean", mean), std=_numbers("std", std)
    )
    for note in found.notes:
        console.note(note)
    report = quantize_onnx(
        model,
        target,
        found.calibration,
        found.search,
        mode=mode,
        allowance=Allowance(max_accuracy_drop),
        images=images,
        setting=Setting(provider, batch, threads),
        progress=console.note,
    )
    document = {**report.to_dict(), "out": str(target) if report.file else None}
    show_quantized(document)
    return document


def _numbers(option: str, text: str | None) -> list[float] | None:
    from pipeline.errors import UsageError

    try:
        return [float(part) for part in text.split(",")] if text else None
    except ValueError:
        raise UsageError(
            f"--{option} {text}: expected numbers such as 0.485,0.456,0.406",
            hint="one for each channel, with commas between them",
        ) from None


def show_quantized(document: dict[str, Any]) -> None:
    """Every scheme that was tried, the machine, and the verdict."""
    rows = [_row(tried) for tried in document["tried"]]
    columns = ("types", "weights", "operators", "ranges", *_MEASURED)
    console.table(columns, rows, right=_MEASURED)
    machine = document["machine"]
    console.say(f"8-bit arithmetic here: {int8_sentence(machine)}")
    console.say(f"{document['chosen']}: {document['reason']}")
    if document["out"]:
        console.say(f"INT8 file: {document['out']}")


def _row(tried: dict[str, Any]) -> tuple[str, ...]:
    scheme, ci95 = tried["scheme"], tried["ci95"]
    ratio = f"{tried['ratio']:.2f}×" if tried["ratio"] else ""
    return (
        scheme["name"],
        ("per channel" if scheme["per_channel"] else "per tensor")
        + (", 7 bits" if scheme["reduce_range"] else ""),
        scheme["operators"],
        scheme["calibrator"] if tried["images"] else "",
        _percent(tried["accuracy"]),
        _percent(tried["top1_agreement"]),
        "" if tried["output_error"] is None else f"{tried['output_error']:.3f}",
        ratio + (f" ({ci95[0]:.2f} to {ci95[1]:.2f})" if ci95 else ""),
    )


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.2%}"


def int8_sentence(machine: dict[str, Any]) -> str:
    """What the processor has for it, and which types overflow 16 bits."""
    features = ", ".join(machine["features"]) or "not known"
    if not machine["saturates"]:
        return f"{features}; nothing overflows"
    types = " and ".join(machine["saturates"])
    return f"{features}; {types} overflow 16 bits, so their weights get 7 bits"
