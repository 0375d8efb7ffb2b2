"""Foreign files before they are timed: fed what they take, or refused with what is wrong."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import foreign_files as foreign
import pytest
from foreign_files import classifier, save

from pipeline.errors import ArtifactError, EnvironmentProblem, RlpError, UsageError
from pipeline.runtime import Worker
from stages.benchmark import Setting, equal_work
from stages.benchmark.equal_work import Call, Checked, Tensor, check_files, differences, first_call
from stages.benchmark.node_profile import profile

IMAGES = Setting(batch=2)
OPEN = ("batch", 3, "h", "w")


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    """One child for many files: it takes longer to start than to open one of these."""
    with Worker() as child:
        yield child


def saved(build: Callable[[], Any]) -> Callable[[Path], Path]:
    """A graph as a function that writes it to a folder."""
    return functools.partial(save, build)


def sized(*sizes: int | str | None, **options: Any) -> Callable[[Path], Path]:
    def build() -> Any:
        return classifier(sizes, **options)

    return saved(build)


RIGHT: dict[str, tuple[Callable[[Path], Path], Any, dict[str, str], str]] = {
    # how it is made, sizes given, what it is fed, what it gives
    "open batch": (saved(classifier), None, {"input": "float32 2×3×8×8"}, "float32 2×4"),
    "height and width": (sized(*OPEN), [3, 9, 7], {"input": "float32 2×3×9×7"}, "float32 2×4"),
    "by name": (
        sized(*OPEN),
        {"h": [9], "w": [7]},
        {"input": "float32 2×3×9×7"},
        "float32 2×4",
    ),
    "without names": (
        sized(None, 3, None, None),
        {"input": [3, 9, 7]},
        {"input": "float32 2×3×9×7"},
        "float32 2×4",
    ),
    "its own batch": (sized(2, 3, 8, 8), None, {"input": "float32 2×3×8×8"}, "float32 2×4"),
    "opset 9": (sized(*foreign.IMAGE, opset=9), None, {"input": "float32 2×3×8×8"}, "float32 2×4"),
    "two inputs": (
        saved(foreign.two_inputs),
        None,
        {"input": "float32 2×3×8×8", "facts": "float32 2×4"},
        "float32 2×4",
    ),
    "token ids": (
        saved(foreign.text_model),
        {"sequence": [7]},
        {"input_ids": "int64 2×7", "attention_mask": "int64 2×7"},
        "float32 2×4",
    ),
    "bytes": (saved(foreign.uint8_input), None, {"input": "uint8 2×3×8×8"}, "float32 2×4"),
    "float16": (saved(foreign.float16), None, {"input": "float16 2×3×8×8"}, "float16 2×4"),
    "QDQ of float weights": (
        saved(foreign.float_weights_quantised),
        None,
        {"input": "float32 2×3×8×8"},
        "float32 2×4",
    ),
    "dynamic INT8": (foreign.dynamic_int8, None, {"input": "float32 2×3×8×8"}, "float32 2×4"),
    "weights as inputs": (
        saved(foreign.weights_as_inputs),
        None,
        {"input": "float32 2×3×8×8"},
        "float32 2×4",
    ),
    "boxes": (saved(foreign.detector), None, {"input": "float32 2×3×8×8"}, "float32 8×48"),
    "external data": (foreign.external_data, None, {"input": "float32 2×3×8×8"}, "float32 2×64"),
}


@pytest.mark.parametrize("kind", RIGHT)
def test_is_fed_what_it_takes(tmp_path: Path, worker: Worker, kind: str) -> None:
    make, given, fed, gives = RIGHT[kind]
    call = first_call(make(tmp_path), IMAGES, given, worker=worker)
    assert {name: str(tensor) for name, tensor in call.inputs.items()} == fed
    assert [str(tensor) for tensor in call.outputs.values()] == [gives]


WRONG: dict[str, tuple[Callable[[Path], Path], Any, type[RlpError], str]] = {
    "open sizes": (sized(*OPEN), None, UsageError, "leaves sizes open.*batch×3×h×w"),
    "too few sizes": (sized(*OPEN), [9, 7], UsageError, "--shape gives 2 of its 3 sizes"),
    "one of two": (sized(*OPEN), {"h": [9]}, UsageError, "leaves sizes open"),
    "token ids": (saved(foreign.text_model), None, UsageError, "input_ids is batch×sequence"),
    "another batch": (sized(8, 3, 8, 8), None, UsageError, "takes 8 images a call.* for 2"),
    "no batch": (saved(foreign.no_batch), None, UsageError, "takes 1 image a call"),
    "a batch as a size": (saved(classifier), {"batch": [4]}, UsageError, "this is the batch"),
    "rows for one image": (
        saved(foreign.reshaped),
        [3, 16, 16],
        UsageError,
        "4 rows for one image",
    ),
    "indivisible": (saved(foreign.reshaped), [3, 9, 9], ArtifactError, "does not run at input 2×3"),
    "text": (saved(foreign.string_input), None, ArtifactError, "tensor.string.*only numbers"),
    "truncated": (foreign.truncated, None, ArtifactError, "onnxruntime refused"),
    "3 GB": (foreign.three_gigabytes, None, ArtifactError, "3.0 GB, and an ONNX file can have"),
    "3 GB in its header": (foreign.large_header, None, ArtifactError, "3000000000 bytes"),
    "lost weights": (foreign.external_data_missing, None, ArtifactError, "onnxruntime refused"),
    "a folder": (lambda folder: folder, None, ArtifactError, "is a folder"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_is_refused_with_what_is_wrong(tmp_path: Path, worker: Worker, kind: str) -> None:
    make, given, error, words = WRONG[kind]
    with pytest.raises(error, match=words) as caught:
        first_call(make(tmp_path), IMAGES, given, worker=worker)
    assert caught.value.hint


def test_several_rows_an_image_are_allowed_where_difference_is(tmp_path: Path) -> None:
    files = [save(foreign.reshaped, tmp_path)]
    with pytest.raises(UsageError, match="rows for one image") as refused:
        check_files(files, [Setting()], {"": [3, 16, 16]})
    assert "--allow-different" in refused.value.hint
    checked = check_files(files, [Setting()], {"": [3, 16, 16]}, allow_different=True)
    assert str(checked.calls[0, 0].outputs["logits"]) == "float32 4×192"


def test_an_input_that_would_not_fit_in_memory_is_never_made(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match=r"one call takes 4320\.0 GB"):
        first_call(save(foreign.enormous_input, tmp_path), Setting())


def test_an_image_without_a_batch_is_one_image(tmp_path: Path) -> None:
    call = first_call(save(foreign.no_batch, tmp_path), Setting())
    assert str(call.inputs["input"]) == "float32 3×8×8"
    assert call.memory_bytes > 0


def test_a_static_batch_is_fixed_under_whatever_name_it_has(tmp_path: Path) -> None:
    call = first_call(sized("N", 3, 8, 8)(tmp_path), Setting(batch=2, static_batch=True))
    assert call.open_sizes == ()
    with pytest.raises(UsageError, match="has no name"):
        first_call(sized(None, 3, 8, 8)(tmp_path), Setting(static_batch=True))


@pytest.mark.parametrize(
    ("make", "macs", "inputs", "beside"),
    [
        (sized(8, 3, 8, 8), 6912, 0, 0),
        (saved(foreign.float_weights_quantised), 6912, 0, 0),
        (saved(foreign.weights_as_inputs), 6912, 1, 0),
        (saved(foreign.old_weights_as_inputs), 6912, 0, 0),
        (foreign.dynamic_int8, 6912, 0, 0),
        (foreign.external_data, 16 * 6912, 0, 4 * 64 * 27),
    ],
)
def test_work_of_one_image_is_counted_in_every_form(
    tmp_path: Path,
    worker: Worker,
    make: Callable[[Path], Path],
    macs: int,
    inputs: int,
    beside: int,
) -> None:
    facts = worker.scan(make(tmp_path))
    found = (facts["macs"], facts["weights_as_inputs"], facts["external_bytes"])
    assert found == (macs, inputs, beside)


def test_small_float16_weights_are_no_denormals_and_its_casts_are_seen(tmp_path: Path) -> None:
    def tiny() -> Any:
        proto = foreign.float16()
        proto.graph.initializer[0].raw_data = b"\x01\x00" * (4 * 27)  # 6e-8
        return proto

    found = profile(save(tiny, tmp_path), Setting(), runs=4)
    assert (found.denormals, found.halves) == (0, True)
    assert [node.layer for node in found.convs] == ["w"]


def call_of(file: str, inputs: dict[str, Tensor], outputs: dict[str, Tensor] | None = None) -> Call:
    given = outputs or {"logits": Tensor("float32", (1, 4))}
    return Call(file, inputs, given, (), 0, 0.0, 0.0)


def test_names_alone_make_no_difference_and_order_none_where_names_are_equal() -> None:
    x, y = Tensor("float32", (1, 3, 8, 8)), Tensor("int64", (1, 7))
    base = call_of("a.onnx", {"x": x, "y": y})
    assert differences(base, call_of("b.onnx", {"p": x, "q": y})) == []
    assert differences(base, call_of("b.onnx", {"y": y, "x": x})) == []
    (said,) = differences(base, call_of("b.onnx", {"q": y, "p": x}))
    assert said == (
        "b.onnx takes int64 1×7 and float32 1×3×8×8, a.onnx float32 1×3×8×8 and int64 1×7"
    )
    other = {"logits": Tensor("float16", (1, 4))}
    (said,) = differences(base, call_of("b.onnx", {"x": x, "y": y}, other))
    assert "gives float16 1×4" in said


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (sized(*foreign.IMAGE, channels=5), "gives float32 2×5"),
        (sized("batch", 3, 9, 8), "takes float32 2×3×9×8"),
        (saved(foreign.uint8_input), "takes uint8 2×3×8×8"),
    ],
)
def test_other_work_is_told_by_what_goes_in_and_comes_out(
    tmp_path: Path, worker: Worker, other: Callable[[Path], Path], words: str
) -> None:
    (tmp_path / "other").mkdir()
    files = [save(classifier, tmp_path), other(tmp_path / "other")]
    a, b = (first_call(file, IMAGES, worker=worker) for file in files)
    (said,) = differences(a, b)
    assert words in said


def test_other_work_is_refused_unless_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    def first(path: Path, setting: Setting, shape: Any, **options: Any) -> Call:
        return call_of(path.name, {"x": Tensor("float32", (1, len(path.name)))})

    monkeypatch.setattr(equal_work, "first_call", first)
    files = [Path("a.onnx"), Path("bb.onnx")]
    with pytest.raises(
        UsageError, match=r"not the same work: bb\.onnx takes float32 1×7"
    ) as caught:
        check_files(files, [Setting()], {})
    assert "--allow-different" in caught.value.hint
    checked = check_files(files, [Setting()], {}, allow_different=True)
    assert checked.groups() == [([0, 1], [0])]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"": [3, 9, 9]}, "--shape 3x9x9: the files take float32 1×3×8×8"),
        ({"input": [3, 9, 9]}, "--shape input=3x9x9"),
        ({"heigth": [9]}, "no file has an input or an open size of that name"),
    ],
)
def test_sizes_that_no_file_takes_are_refused(
    tmp_path: Path, given: dict[str, list[int]], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        check_files([save(classifier, tmp_path)], [Setting()], given)


def test_open_sizes_are_suggested_as_the_first_file_has_them(tmp_path: Path) -> None:
    files = [save(classifier, tmp_path), sized(*OPEN)(tmp_path)]
    with pytest.raises(UsageError) as caught:
        check_files(files, [Setting()], {})
    assert "classifier.onnx takes --shape 3x8x8" in caught.value.hint


def test_a_file_with_another_batch_loses_its_row_and_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fixed = {"eight.onnx": 8}

    def first(path: Path, setting: Setting, shape: Any, **options: Any) -> Call:
        images = fixed.get(path.name, setting.batch)
        if images != setting.batch:
            raise equal_work.FixedBatch(path.name, images, setting.batch)
        return call_of(path.name, {"x": Tensor("float32", (setting.batch, 3))})

    monkeypatch.setattr(equal_work, "first_call", first)
    base, eight, free = (Path(f"{name}.onnx") for name in ("base", "eight", "free"))
    settings = [Setting(batch=1), Setting(batch=8)]
    found: Checked = check_files([base, eight, free], settings, {})
    assert found.groups() == [([0, 2], [0]), ([0, 1, 2], [1])]
    assert [(row.file, row.batch) for row in found.refused] == [("eight.onnx", 1)]
    with pytest.raises(UsageError, match=r"eight\.onnx takes 8 images a call, --batch asks for 1"):
        check_files([base, eight], settings[:1], {})
    with pytest.raises(UsageError, match="takes 8 images"):
        check_files([eight, free], settings[:1], {})
