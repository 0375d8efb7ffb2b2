"""The alignment of a machine: measured once, kept, never believed when damaged or another's."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from pipeline.errors import EnvironmentProblem
from pipeline.runtime import CPU
from stages.benchmark import Alignment, cached_alignment, known_alignment, measure_alignment


def blocked_timer(block: int) -> Callable[[bytes], float]:
    """Seconds of a call on a machine that rounds widths up to `block`."""

    def seconds(graph: bytes) -> float:
        shape = onnx.load_from_string(graph).graph.initializer[0].dims
        return 1e-6 * math.prod(math.ceil(size / block) * block for size in shape if size > 3)

    return seconds


class Counted:
    """`measure_alignment` with a timer that takes no time; counts how often it is asked."""

    def __init__(self, block: int = 16) -> None:
        self.block, self.times = block, 0

    def __call__(self, **setting: object) -> Alignment:
        self.times += 1
        return measure_alignment(**setting, timer=blocked_timer(self.block))  # type: ignore[arg-type]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "rlp" / "alignment"


@pytest.mark.parametrize("block", [8, 16])
def test_the_sweep_finds_the_block_of_the_machine(block: int) -> None:
    assert measure_alignment(timer=blocked_timer(block)).multiple == block


def test_is_measured_once_and_then_kept(cache: Path) -> None:
    measure, said = Counted(), []
    first = cached_alignment(measure=measure, before=lambda: said.append("now"))
    second = cached_alignment(measure=measure, before=lambda: said.append("again"))
    assert (first[1], second[1], measure.times, said) == (False, True, 1, ["now"])
    assert second[0] == first[0] == known_alignment()
    assert [path.name for path in cache.iterdir()] == [f"{first[0].machine}-cpu-1t.json"]
    assert cached_alignment(measure=Counted(8), refresh=True)[0].multiple == 8
    assert known_alignment().multiple == 8  # type: ignore[union-attr]


def test_another_number_of_threads_is_another_measurement(cache: Path) -> None:
    cached_alignment(measure=Counted())
    assert known_alignment(threads=2) is None


def test_int8_is_another_measurement_of_quantised_layers(cache: Path) -> None:
    graphs: list[onnx.ModelProto] = []

    def measure(**setting: object) -> Alignment:
        def seconds(graph: bytes) -> float:
            graphs.append(onnx.load_from_string(graph))
            return blocked_timer(32)(graph)

        return measure_alignment(**setting, timer=seconds)  # type: ignore[arg-type]

    cached_alignment(measure=Counted())
    found, known = cached_alignment(measure=measure, precision="int8")
    assert (found.multiple, found.precision, known) == (32, "int8", False)
    assert known_alignment() != known_alignment(precision="int8") == found
    assert {one.data_type for g in graphs for one in g.graph.initializer if len(one.dims) == 4} == {
        onnx.TensorProto.INT8
    }
    (cache / f"{found.machine}-cpu-1t.json").replace(cache / f"{found.machine}-cpu-1t-int8.json")
    assert known_alignment(precision="int8") is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace('"multiple": 16', '"multiple": 32'),
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[]",
        lambda text: text.replace('"us": ', '"us": 1'),
    ],
)
def test_a_damaged_file_is_measured_again(cache: Path, damage: Callable[[str], str]) -> None:
    cached_alignment(measure=Counted())
    (path,) = cache.iterdir()
    whole = path.read_text()
    path.write_text(damage(whole))
    assert path.read_text() != whole
    assert known_alignment() is None
    measure = Counted()
    assert cached_alignment(measure=measure)[0].multiple == 16
    assert measure.times == 1
    assert path.read_text() == whole


def test_a_file_of_another_machine_is_not_taken(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, _ = cached_alignment(measure=Counted())
    (path,) = cache.iterdir()
    monkeypatch.setattr("stages.benchmark.alignment_cache.fingerprint", lambda: {"id": "f" * 16})
    path.rename(path.with_name(path.name.replace(here.machine, "f" * 16)))
    assert known_alignment() is None


def test_without_a_folder_to_write_to_nothing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rlp").write_text("a file where the folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cached_alignment(measure=Counted())[0].multiple == 16
    assert known_alignment() is None


def test_an_absent_provider_is_refused_before_anything_is_timed(cache: Path) -> None:
    measure = Counted()
    with pytest.raises(EnvironmentProblem, match="has no Tensorrt"):
        cached_alignment(provider="tensorrt", measure=measure)
    assert measure.times == 0


def test_survives_json_and_refuses_what_its_timings_do_not_say() -> None:
    found = measure_alignment(timer=blocked_timer(16))
    document = json.loads(json.dumps(found.to_dict()))
    assert Alignment.from_dict(document) == found
    assert found.provider == CPU
    with pytest.raises(ValueError, match="timings"):
        Alignment.from_dict({**document, "multiple": 8})


@pytest.mark.parametrize(
    ("widths", "multiple"),
    [
        ([16, 16, 32, 32, 64], 8),
        ([32, 96, 144, 192, 384, 1280], 16),
        ([4, 4, 8], 1),
        ([64], 16),
        ([], 16),
    ],
)
def test_narrow_networks_take_a_smaller_multiple(widths: list[int], multiple: int) -> None:
    assert measure_alignment(timer=blocked_timer(16)).for_widths(widths) == multiple
