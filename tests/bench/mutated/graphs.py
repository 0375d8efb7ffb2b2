"""ONNX files of which single fields are wrong, where changed bytes would rarely parse.

Small classifiers as other tools write them get one or two of `CHANGES`, and are read by all that
reads a file that came without a run: `rlp inspect`, and what `rlp bench` and `rlp quantize` do
before they time anything.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import foreign_files
import tiny_sets
from mutated import wrong_nodes, wrong_tensors
from mutated.changes import ODD, Case
from onnx import ModelProto

Change = Callable[[ModelProto, random.Random], None]

BASES: tuple[Callable[[], ModelProto], ...] = (
    foreign_files.classifier,
    foreign_files.two_inputs,
    foreign_files.reshaped,
    foreign_files.text_model,
    foreign_files.uint8_input,
    foreign_files.float16,
    foreign_files.weights_as_inputs,
    foreign_files.float_weights_quantised,
    foreign_files.no_batch,
)


def odd_metadata(proto: ModelProto, chance: random.Random) -> None:
    """What the file says of its images and classes, as nobody meant it."""
    for _ in range(chance.randint(1, 3)):
        key = chance.choice(["mean", "std", "classes", "\x1b[2J", ""])
        odd = chance.choice([*ODD, [0.5] * 3, [0.5], [0, 0, 0], ["cat", "dog"], [1, "a", None]])
        text = json.dumps(odd) if chance.random() < 0.6 else str(odd)[:6000]
        proto.metadata_props.add(key=key, value=text)
    if chance.random() < 0.3:
        proto.ir_version = chance.choice([0, 1, 3, 99, 2**62, -1])


CHANGES: tuple[Change, ...] = (
    wrong_tensors.truncated_tensor,
    wrong_tensors.wrong_dims,
    wrong_tensors.huge_dims,
    wrong_tensors.wrong_type,
    wrong_tensors.outside_data,
    wrong_tensors.sparse,
    wrong_nodes.cycle,
    wrong_nodes.missing,
    wrong_nodes.unknown_operator,
    wrong_nodes.doubled_names,
    wrong_nodes.odd_links,
    wrong_nodes.odd_attribute,
    wrong_nodes.subgraph,
    wrong_nodes.loop,
    wrong_nodes.function,
    odd_metadata,
)


def mutated(chance: random.Random) -> bytes:
    """A file of `BASES` with one or two of `CHANGES`, and now and then a name that is no text."""
    proto = chance.choice(BASES)()
    for change in chance.sample(CHANGES, chance.choice([1, 1, 2])):
        change(proto, chance)
    data = proto.SerializeToString()
    if chance.random() < 0.05:
        return data.replace(b"input", b"\xff\xfeput")
    return data


def graphs_reader(images: Path) -> Case:
    """Files that came without a run, by two of those that read them.

    Args:
        images: a folder to be made, for what is calibrated on images.
    """
    for label, name in enumerate(tiny_sets.CLASSES):
        (images / name).mkdir(parents=True)
        for k in range(4):
            (images / name / f"{k}.png").write_bytes(tiny_sets.picture(label, k))

    def case(chance: random.Random, folder: Path) -> list[list[str]]:
        path = folder / "m.onnx"
        path.write_bytes(mutated(chance))
        wrong_tensors.beside(folder)
        readers = [["inspect", str(path)], ["first-call", str(path)], ["scan", str(path)],
                   ["images-for", str(path), str(images)], ["prepare", str(path)]]  # fmt: skip
        return chance.sample(readers, 2)

    return case


def first_call(path: str) -> None:
    """As `rlp bench` calls a file once before it is timed."""
    from stages.benchmark import equal_work
    from stages.benchmark.setting import Setting

    equal_work.first_call(Path(path), Setting())


def scan(path: str) -> None:
    """As `rlp bench` counts the work of a file that was not faster."""
    from pipeline.runtime.worker import Worker

    with Worker() as worker:
        worker.scan(Path(path))


def images_for(path: str, images: str) -> None:
    """As `rlp quantize` reads images the way that a file takes them."""
    from stages.quantize.outside import outside_images

    found = outside_images(Path(path), Path(images), size=8)
    for _ in found.calibration.batches(2):
        pass


def prepare(path: str) -> None:
    """As `rlp quantize` makes a file ready."""
    from stages.quantize.workbench import Workbench

    with Workbench(Path(path)) as bench:
        print(bench.opset, bench.image_shape, bench.fixed_batch)
