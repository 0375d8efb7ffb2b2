"""`rlp data ls | get | import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline import console
from pipeline.cli.common import command
from pipeline.errors import Command, EnvironmentProblem, Hint, Set

app = typer.Typer(
    help="Images: which kinds can be read, download, look at a folder.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@command(app, "ls", keys=("sources",))
def ls() -> dict[str, Any]:
    """List the kinds of images that can be read."""
    from pipeline.data.sources import SOURCES
    from pipeline.data.sources.public_sets import PUBLIC

    kinds: dict[str, Any] = {**SOURCES, **PUBLIC}
    rows = [{"source": name, "about": source.about} for name, source in kinds.items()]
    console.table(("data.source", "what it reads"), [(row["source"], row["about"]) for row in rows])
    return {"sources": rows}


def _show(card: Any) -> dict[str, Any]:
    doc = card.to_dict()
    console.say(
        f"{card.label}: {len(card.classes)} classes, images "
        f"{'×'.join(map(str, card.image_shape))} (c×h×w)"
    )
    rows = []
    for split, counts in card.counts.items():
        skipped = card.skipped.get(split, 0)
        rows.append(
            (
                split,
                f"{sum(counts):,}",
                min(counts),
                max(counts),
                skipped,
                card.split_sha256[split][:16],
            )
        )
    console.table(
        ("split", "images", "fewest a class", "most a class", "skipped", "sha256"),
        rows,
        right=("images", "fewest a class", "most a class", "skipped"),
    )
    for remark in card.remarks:
        console.warn(remark)
    console.say(
        "mean "
        + " ".join(f"{m:.4f}" for m in card.mean)
        + "   std "
        + " ".join(f"{s:.4f}" for s in card.std)
    )
    return doc


@command(app, "import", keys=("card",))
def import_(
    root: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER", help="A folder of images in any layout that `rlp data ls` names."
        ),
    ],
    source: Annotated[
        str, typer.Option("--source", help="Its kind, when it is not recognised by itself.")
    ] = "auto",
    image_size: Annotated[
        int | None,
        typer.Option(
            "--image-size", min=8, max=1024, help="Height and width that images are resized to."
        ),
    ] = None,
) -> dict[str, Any]:
    """Read a folder of images as a run would, check every image, and say what is in it."""
    from pipeline.config.data import DataConfig
    from pipeline.data.load import describe
    from pipeline.data.prepare_encoded import USUAL_SIZE, SizesDiffer

    def card(size: int | None) -> Any:
        return describe(DataConfig(source=source, root=str(root), download=False, image_size=size))

    try:
        found = card(image_size)
    except SizesDiffer as error:
        image_size = USUAL_SIZE
        found = card(image_size)
        console.warn(f"{error.message}: shown at {image_size}; --image-size takes another")
    doc = _show(found)
    size = f" {Set('data.image_size', image_size)}" if image_size else ""
    console.note(f"use it with: {Set('data.root', root)}{size}")
    return {"card": doc}


@command(app, "get", keys=("card",))
def get(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A public data set, such as cifar10.")
    ],
    root: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to put it.")],
) -> dict[str, Any]:
    """Download a public data set, verify its checksum, and say what is in it."""
    from pipeline.config.data import DataConfig
    from pipeline.data.load import describe
    from pipeline.data.sources import EMBEDDED

    try:
        doc = _show(describe(DataConfig(source=name, root=str(root), download=True)))
    except EnvironmentProblem as error:
        if isinstance(error.hint, Hint):  # no config here could be told to take other images
            own = Command("pipeline", "run", "configs/quickstart.yaml")
            error.hint = error.hint.with_part(EMBEDDED, own)
        raise
    console.note(f"use it with: {Set('data.root', root)}")
    return {"card": doc}
