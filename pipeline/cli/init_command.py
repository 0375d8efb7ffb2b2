"""`rlp init`: look at a network and images, and write a config that runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline import console
from pipeline.cli.common import SetOption, command

if TYPE_CHECKING:
    from pipeline.cli.init_seen import Seen

KEYS = ("out", "images", "network", "minutes", "settings")


def register(app: typer.Typer) -> None:
    command(app, "init", keys=KEYS)(init)


_Model = Annotated[
    str,
    typer.Option(
        "--model",
        metavar="SOURCE",
        help="A built-in name, torchvision:NAME, timm:NAME, package.module:factory or "
        "path/to/file.py:factory.",
    ),
]
_Data = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="PATH",
        help="A folder of images in any layout that `rlp data ls` names, or a name from there.",
    ),
]
_Weights = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        metavar="FILE",
        help="Its trained weights: .safetensors or a .pth state dict. Without, a run trains it.",
    ),
]
_Out = Annotated[Path, typer.Option("--out", metavar="FILE", help="The config to write.")]


def init(
    model: _Model = "mobilenet_v2",
    data: _Data = "embedded",
    weights: _Weights = None,
    out: _Out = Path("my.yaml"),
    sets: SetOption = None,
) -> dict[str, Any]:
    """Look at a network and a folder of images, say what is there, and write a commented config
    that runs as it is.

    Nothing else is written, and no file is replaced.
    """
    from pipeline.cli import init_config
    from pipeline.cli.init_look import look
    from pipeline.config.load import apply_overrides, build_config
    from pipeline.models.user_source import source_of_path

    _check_free(out)
    source = source_of_path(model, out.parent)
    given: dict[str, Any] = {"model": {"source": source}, "data": _images(data)}
    if weights is not None:
        given["model"]["weights"] = str(weights)
    apply_overrides(given, sets or ())
    console.note(f"looking at {data} and {model}")
    seen = look(build_config(given), out.parent)
    settings, comments = init_config.settings_for(seen, given)
    config = build_config(settings)
    minutes = init_config.minutes(seen.card, seen.graph, (seen.forward, seen.step), config)
    lines = [*_images_seen(seen), *_network_seen(seen, source), _expected(minutes)]
    _write(out, init_config.text_of(settings, comments, _head(out, lines)))
    for line in lines:
        console.say(line)
    for remark in (*seen.card.remarks, *seen.remarks):
        console.warn(remark)
    console.say(f"written: {out}")
    console.note(f"next: {_next(out)}")
    return {
        "out": str(out),
        "images": seen.card.to_dict(),
        "network": _network(seen),
        "minutes": minutes,
        "settings": settings,
    }


def _images(data: str) -> dict[str, Any]:
    """The section that names them.

    Raises:
        UsageError: pictures in one folder, of which nothing says what they show.
    """
    from pipeline.data.sources import PUBLIC
    from pipeline.data.sources.folders import SUFFIXES
    from pipeline.errors import Hint, UsageError

    root = Path(data).expanduser()
    if not root.exists() and (data == "embedded" or data in PUBLIC):
        return {"source": data}
    if root.is_dir():
        inside = list(root.iterdir())
        flat = sum(path.suffix.lower() in SUFFIXES and path.is_file() for path in inside)
        if flat and not any(
            path.is_dir() or path.suffix in (".parquet", ".csv") for path in inside
        ):
            kinds = Hint.command("data", "ls", says="lists other layouts")
            raise UsageError(
                f"{data}: {flat:,} pictures without labels; a run needs to know what they show",
                hint=Hint("add labels.csv with the columns file and label; ", kinds),
            )
    return {"root": data}


def _check_free(out: Path) -> None:
    from pipeline.errors import EnvironmentProblem, UsageError

    if out.exists() or out.is_symlink():
        raise UsageError(f"{out}: is there already, and is not replaced", hint=_elsewhere(out))
    if out.suffix not in (".yaml", ".yml"):
        raise UsageError(f"--out {out}: expected a name that ends in .yaml", hint="--out my.yaml")
    if not out.parent.is_dir():
        raise EnvironmentProblem(
            f"--out {out}: there is no folder {out.parent}", hint=f"make it: mkdir {out.parent}"
        )


def _elsewhere(out: Path) -> str:
    from pipeline.errors import Hint

    names = (out.with_name(f"{out.stem}-{number}{out.suffix}") for number in range(2, 1000))
    free = next((name for name in names if not name.exists()), out.with_name("other.yaml"))
    return Hint.command("init", "--out", str(free), says="writes another")


def _write(out: Path, text: str) -> None:
    """The whole file, or none; one that came meanwhile stays."""
    from pipeline.errors import UsageError
    from pipeline.run.store import disk_errors

    with disk_errors(out):
        try:
            stream = out.open("x", encoding="utf-8")
        except FileExistsError:
            raise UsageError(f"{out}: is there already", hint=_elsewhere(out)) from None
        try:
            with stream:
                stream.write(text)
        except BaseException:
            out.unlink(missing_ok=True)
            raise


def _images_seen(seen: Seen) -> list[str]:
    card = seen.card
    counts = ", ".join(f"{sum(n):,} {split}" for split, n in card.counts.items())
    each = card.counts["train"]
    few, many = f"{min(each):,}", f"{max(each):,}"
    spread = few if few == many else f"{few} to {many}"
    skipped = sum(card.skipped.values())
    bad = f"; {skipped:,} cannot be read and are left out" if skipped else ""
    colour = "grey" if card.in_channels == 1 else "colour"
    shape = "×".join(map(str, card.image_shape[1:]))
    sizes = len(seen.stored.sizes)
    stored = f"stored in {sizes:,} sizes" if sizes > 1 else f"stored at {next(iter(card.sizes))}"
    return [
        f"images   {card.label}: {card.num_classes} classes; {counts}; {spread} of a class to "
        f"train on{bad}",
        f"         {colour}, {stored}, seen by the network at {shape}",
    ]


def _network_seen(seen: Seen, source: str) -> list[str]:
    from pipeline.cli.init_config import reasons

    graph = seen.graph
    lines = [
        f"network  {source}: {seen.params:,} parameters, {seen.macs / 1e6:,.1f} M MACs an image",
        f"         {len(graph.groups)} groups of channels, {len(graph.prunable)} may be cut; "
        f"{1000 * seen.forward:.1f} ms an image in PyTorch",
    ]
    return lines + [f"         {reason}" for reason in reasons(seen)[:5]]


def _network(seen: Seen) -> dict[str, Any]:
    graph = seen.graph
    return {
        "parameters": seen.params,
        "macs": seen.macs,
        "groups": len(graph.groups),
        "prunable": len(graph.prunable),
        "frozen": dict(graph.frozen),
        "seconds_an_image": seen.forward,
        "remarks": list(seen.remarks),
    }


def _expected(minutes: dict[str, float]) -> str:
    parts = ", ".join(f"{stage} {took:g}" for stage, took in minutes.items() if took >= 0.5)
    whole = max(1, round(sum(minutes.values())))
    return f"expected about {whole:,} minutes on this machine as busy as it is: {parts}"


def _head(out: Path, lines: list[str]) -> list[str]:
    return [
        "Written by `rlp init` for what it saw; every line may be changed.",
        "",
        f"  {_next(out)}",
        "",
        *lines,
        "",
        "`rlp config schema` lists every other key; all of them have defaults.",
    ]


def _next(out: Path) -> str:
    from pipeline.errors import Command

    return Command("pipeline", "run", str(out))
