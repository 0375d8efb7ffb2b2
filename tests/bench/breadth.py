"""Everybody's networks: trace, cut, compare. One row a network, in JSON and Markdown.

    python tests/bench/breadth.py [--torchvision | --timm | --transformers] [--families res2net,dpn]
        [--only NAME] [--json FILE] [--resume] [--onnx] [--reconstruct]
        [--against docs/results/breadth.json] [--keep docs/results/breadth.json]
        [--workers N]

Without a choice: torchvision's CNNs at their usual size, then timm's at reduced size where timm is
installed. Weights that a network computes from parameters are folded first, which its row says. A
network is traced with one image, cut by half and by shares that differ from group to group, and
each cut is compared with the silenced network on two images in float64; its units are shuffled; its
MACs and parameters are counted by torch before and after; everything the model holds is compared
before and after the trace. With --onnx the half network also runs in onnxruntime; with
--reconstruct the network cut by a quarter is reconstructed on random images, and must come nearer.
Each network has a process of its own, so that one that fails is a row.

--json keeps the rows as they come; --resume goes on where a run was cut off (what failed and what
--only names runs again). --against says which rows are wrong, or remove half a point less than in
an older file or in the short table that stays with the results; --keep puts the rows into that one.
Exit code 1 when a network is not ok or, with --against, got worse.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from functools import partial
from pathlib import Path
from statistics import median

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

import kept  # noqa: E402
import rows as table  # noqa: E402
import timm_zoo  # noqa: E402
import torch  # noqa: E402
import zoo  # noqa: E402
from guarded import Failure, run_each  # noqa: E402
from survey import HALF, UNEQUAL, Row, survey  # noqa: E402
from torch import nn  # noqa: E402

from stages.trace import trace  # noqa: E402

AGAIN = ("failed", "unbuilt")  # on --resume: it may have been the machine
IMAGES = 2  # one is traced: what depends on the number of images shows


def work(task: Row, cuts: list[str], onnx: bool, reconstruct: bool) -> Row:
    """One network, in a process of its own."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    started = time.perf_counter()
    try:
        model = (timm_zoo if task.source == "timm" else zoo).build(task.name)
    except Exception as error:
        task.problems["unbuilt"] = f"{type(error).__name__}: {str(error)[:200]}"
        return task
    task.size = getattr(model, "image_size", task.size)  # a ViT takes the one it was built for
    images = torch.randn(IMAGES, 3, task.size, task.size)
    task = survey(task, model, images, cuts, onnx, reconstruct)
    task.seconds["all"] = round(time.perf_counter() - started, 2)
    return task


def tasks(options: argparse.Namespace) -> list[Row]:
    """Empty rows of the networks that were asked for."""
    found = []
    if not options.timm:
        names = (*zoo.CNNS, *zoo.TRANSFORMERS) if options.transformers else zoo.CNNS
        for name in names:
            size = options.size or zoo.usual_size(name)
            found.append(Row(name, "torchvision", zoo.family(name), size))
    if not options.torchvision:
        if timm_zoo.available():
            for name, family in timm_zoo.FAMILY.items():
                found.append(Row(name, "timm", family, options.size or timm_zoo.size(name)))
        else:
            print(
                f"SKIPPED: timm is not installed, {len(timm_zoo.NETWORKS)} networks are not"
                " surveyed. `pip install timm` in an environment of its own brings them.",
                file=sys.stderr,
            )
    wanted = {name for names in options.only for name in names.split(",")}
    families = set(filter(None, options.families.split(",")))
    if unknown := (wanted - {row.name for row in found}) | (
        families - {row.family for row in found}
    ):
        sys.exit(f"no network or family here: {', '.join(sorted(unknown))}")
    return [
        row
        for row in found
        if (row.name in wanted or not wanted) and (row.family in families or not families)
    ]


def main(arguments: list[str] | None = None) -> int:
    options = options_of(arguments)
    asked = tasks(options)
    environment = _environment(timm_zoo.available() and not options.torchvision)
    document = table.Table(options.json, environment, options.resume)
    done = {name for name, row in document.rows.items() if row.status not in AGAIN}
    left = [row for row in asked if options.only or row.name not in done]
    print(f"{len(left)} of {len(asked)} networks; {environment}")
    _warm_up()
    survey_one = partial(
        work,
        cuts=options.cuts.split(","),
        onnx=options.onnx,
        reconstruct=options.reconstruct,
    )
    for row, found in run_each(
        survey_one, left, workers=options.workers, seconds=options.timeout, gib=options.memory
    ):
        if isinstance(found, Failure):
            row.problems["failed"] = found.reason
            found = row
        document.add(found)
        print(_line(found), flush=True)
    here = {row.name: document.rows[row.name] for row in asked}
    if options.markdown:
        options.markdown.write_text(table.markdown(here.values(), environment), encoding="utf-8")
    verdict = _verdict(here, options.against)
    if options.keep:  # after the verdict: OLD may be the same file
        kept.write(options.keep, here.values(), environment)
    return verdict


def _verdict(here: dict[str, Row], against: Path | None) -> int:
    bad = [row for row in here.values() if row.status not in ("ok", "unbuilt")]
    for row in bad:
        print(f"{row.status:10} {row.name}: {table.problem(row)}")
    print(f"{len(here) - len(bad)} of {len(here)} hold")
    if against is None:
        return 1 if bad else 0
    old = table.read(against)
    lost, won = table.worse(old, here), table.better(old, here)
    print(f"against {against}: {len(won)} better, {len(lost)} worse; {_pace(old, here)}")
    print("\n".join(f"WORSE {line}" for line in lost), end="\n" if lost else "")
    return 1 if lost else 0


def _pace(old: dict[str, Row], new: dict[str, Row]) -> str:
    pairs = [
        new[name].seconds["trace_cpu"] / old[name].seconds["trace_cpu"]
        for name in old
        if name in new and "trace_cpu" in old[name].seconds and "trace_cpu" in new[name].seconds
    ]
    if not pairs:
        return "no times to compare"
    return (
        f"CPU time of trace {median(pairs):.2f} times as long in median, {max(pairs):.2f} at most"
    )


def _line(row: Row) -> str:
    return (
        f"{row.name:28} {row.status:10} {row.prunable:4} of {row.groups:4} groups  half removes"
        f" {table.share(row.removed):>7}  trace {row.seconds.get('trace_cpu', 0):5.2f} s"
        f"  all {row.seconds.get('all', 0):5.1f} s  {table.note(row)[:90]}"
    )


def _environment(timm: bool) -> dict[str, str]:
    versions = {"torch": torch.__version__, "torchvision": zoo.version()}
    return {**versions, **({"timm": timm_zoo.version()} if timm else {})}


def _warm_up() -> None:
    """What the first trace of a process imports must not count as the time of a network."""
    torch.set_num_threads(1)
    trace(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 2)), torch.zeros(1, 3, 4, 4)
    )


def options_of(arguments: list[str] | None) -> argparse.Namespace:
    """The command line, read."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--torchvision", action="store_true", help="torchvision's networks only")
    which.add_argument("--timm", action="store_true", help="timm's networks only")
    parser.add_argument("--transformers", action="store_true", help="torchvision's ViTs as well")
    parser.add_argument("--families", default="", help="names of families, with commas between")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="may repeat")
    parser.add_argument("--size", type=int, default=0, help="edge of the images for all networks")
    parser.add_argument("--cuts", default=f"{HALF},{UNEQUAL}", help="default %(default)s")
    parser.add_argument("--onnx", action="store_true", help="also in onnxruntime (slow)")
    parser.add_argument("--reconstruct", action="store_true", help="least squares as well (slow)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="rows, kept as they come")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="the same as tables")
    parser.add_argument("--resume", action="store_true", help="keep the rows FILE has already")
    parser.add_argument("--against", type=Path, metavar="OLD", help="what got worse than there")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="these rows into a short table")
    parser.add_argument("--workers", type=int, default=1, help="networks at the same time")
    parser.add_argument("--timeout", type=float, default=600, help="seconds for one network")
    parser.add_argument("--memory", type=float, default=12, help="GiB for one; 0: no limit")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
