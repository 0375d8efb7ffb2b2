"""Every kind of source through the whole chain, and its damaged variants to their exit codes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import fake_run
import pytest
import yaml
from made_up_times import made_up_times
from real_sets import TEST, TRAIN, WRITERS, encode, names, real_images
from tiny_sets import write_parquet

from pipeline.data.sources import SOURCES, public
from pipeline.run import store
from stages.benchmark import comparison

CONFIG = {
    "model": {"source": "real_sets:net"},
    "data": {"root": "images", "search_fraction": 0.2},
    "pretrain": {"epochs": 1, "batch_size": 20, "precision": "fp32"},
    "search": {
        "budget": {"macs": 0.6},
        "trials": 2,
        "images": 10,
        "fit_images": 20,
        "finalists": 1,
    },
    "distill": {"epochs": 1, "batch_size": 20, "precision": "fp32"},
    "export": {"images": 10, "exporter": "torchscript"},  # the faster of the two
    "quantize": {"mode": "off"},  # takes longer than the rest, and knows no sources
    "benchmark": {
        "batches": [1],
        "threads": [1],
        "min_seconds": 0.01,
        "min_runs": 3,
        "launches": 2,
        "profile": False,
    },
}
EMBEDDED = (
    "--set",
    "data.source=embedded",
    "--set",
    f"data.train_limit={TRAIN}",
    "--set",
    f"data.test_limit={TEST}",
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(CONFIG))
    return tmp_path


def test_every_kind_of_source_is_tried_here() -> None:
    assert {*WRITERS, "embedded"} - {"single folder"} == set(SOURCES)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["embedded", *WRITERS])
def test_from_images_to_report(
    kind: str, here: Path, rlp: fake_run.Rlp, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind != "embedded":
        WRITERS[kind](here / "images", monkeypatch)
        monkeypatch.setattr(comparison, "measure", made_up_times)  # a time knows no sources
    more = EMBEDDED if kind == "embedded" else ()
    done = rlp("pipeline", "run", "my.yaml", "--run-dir", "run", "--json", *more)
    assert done.code == 0, done.err
    doc = done.json()
    card = json.loads((here / "run" / "pretrain" / "data.json").read_text())
    images = json.loads((here / "run" / "pretrain" / "train.json").read_text())["images"]
    assert card["source"] == ("folders" if kind == "single folder" else kind)
    assert len(card["classes"]) == 10
    assert card["image_shape"] == ([3, 32, 32] if kind.startswith("cifar") else [1, 28, 28])
    assert len(card["sha256"]) == 64
    assert len(card["mean"]) == len(card["std"]) == card["image_shape"][0]
    assert 0.2 < card["mean"][0] < 0.4  # real images, not noise
    assert images == (
        {"train": TRAIN, "search": TEST}
        if kind == "folders"
        else {"train": TRAIN - 10, "search": 10}
    )
    assert doc["data"]["test_images"] == TEST
    assert doc["final"]["macs"] <= 0.6 * doc["base"]["macs"]
    assert card["label"] in (here / doc["report"]).read_text()
    if kind != "embedded":
        looked_at = rlp("data", "import", "images", "--json").json()["card"]
        assert {key: looked_at[key] for key in ("sha256", "counts", "mean")} == {
            key: card[key] for key in ("sha256", "counts", "mean")
        }
    again = rlp("pipeline", "plan", "my.yaml", "--run-dir", "run", "--json", *more)
    assert {row["action"] for row in again.json()["stages"]} == {"reuse"}


def refused(rlp: fake_run.Rlp, *more: str) -> tuple[int, str]:
    """Exit code and message of a run that must end before it computes or writes anything."""
    done = rlp("pipeline", "run", "my.yaml", "--run-dir", "run", *more)
    assert (len(done.lines("error")), len(done.lines("hint"))) == (1, 1), done.err
    assert not list(Path("run").glob("*/*"))
    return done.code, done.lines("error")[0]


def corrupt_above_the_cap(root: Path) -> str:
    rows = [(encode(pixels), label) for pixels, label in real_images("train", TRAIN)]
    rows[7] = (rows[7][0][:200], rows[7][1])
    write_parquet(root / "train-00000-of-00001.parquet", rows, names())
    return "1 of 50 train images cannot be read, more than the 1.0% allowed"


def empty_class(root: Path) -> str:
    shutil.rmtree(root / "test" / "Bag")
    return "class 'Bag' has no images in"


def label_out_of_range(root: Path) -> str:
    path = root / "cifar-10-batches-bin" / "data_batch_2.bin"
    path.write_bytes(b"\x0a" + path.read_bytes()[1:])
    return "1 labels of train are out of range (0 … 9), the first is 10 in row 10"


def idx_label_out_of_range(root: Path) -> str:
    path = root / "FashionMNIST" / "raw" / "train-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + b"\x0a")
    return "1 labels of train are out of range (0 … 9), the first is 10 in row 49"


def missing_split(root: Path) -> str:
    (root / "test-00000-of-00001.parquet").unlink()
    return "there is no test split"


def missing_test_folder(root: Path) -> str:
    shutil.rmtree(root / "test")
    shutil.rmtree(root / "val")
    return "there is no test split"


def truncated(root: Path) -> str:
    path = root / "FashionMNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    return "header and length do not agree"


def truncated_binary(root: Path) -> str:
    path = root / "cifar-10-batches-bin" / "test_batch.bin"
    path.write_bytes(path.read_bytes()[:-100])
    return "test_batch.bin is damaged"


def checksum(root: Path) -> str:
    path = root / "cifar-10-batches-py" / "data_batch_3"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    return "data_batch_3 does not have the official md5, so it is not read"


@pytest.mark.parametrize(
    ("kind", "damage"),
    [
        ("parquet", corrupt_above_the_cap),
        ("folders", empty_class),
        ("cifar-binary", label_out_of_range),
        ("idx", idx_label_out_of_range),
        ("parquet", missing_split),
        ("folders", missing_test_folder),
        ("idx", truncated),
        ("cifar-binary", truncated_binary),
        ("cifar-python", checksum),
    ],
)
def test_damage_is_exit_3(
    kind: str,
    damage: Callable[[Path], str],
    here: Path,
    rlp: fake_run.Rlp,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    WRITERS[kind](here / "images", monkeypatch)
    says = damage(here / "images")
    code, message = refused(rlp)
    assert code == 3
    assert says in message
    looked_at = rlp("data", "import", "images")
    assert looked_at.code == 3
    assert says in looked_at.lines("error")[0]


def test_a_corrupt_image_below_the_cap_is_skipped_and_counted(
    here: Path, rlp: fake_run.Rlp, monkeypatch: pytest.MonkeyPatch
) -> None:
    WRITERS["folders"](here / "images", monkeypatch)
    victim = next((here / "images" / "train" / "Bag").iterdir())
    victim.write_bytes(victim.read_bytes()[:100])
    done = rlp(
        "pipeline",
        "run",
        "my.yaml",
        "--run-dir",
        "run",
        "--until",
        "pretrain",
        "--set",
        "data.max_corrupt=0.05",
    )
    assert done.code == 0, done.err
    card = json.loads((here / "run" / "pretrain" / "data.json").read_text())
    assert card["skipped"] == {"train": 1, "test": 0, "search": 0}
    assert sum(card["counts"]["train"]) == TRAIN - 1


def test_no_images_there_is_exit_4_and_names_a_run_that_works(
    here: Path, rlp: fake_run.Rlp
) -> None:
    done = rlp("pipeline", "run", "my.yaml", "--run-dir", "run")
    assert done.code == 4
    assert "there is no folder images" in done.lines("error")[0]
    assert "rlp pipeline run my.yaml --set data.source=embedded" in done.lines("hint")[0]


def test_data_get_without_a_network_is_exit_4_and_names_both_commands(
    here: Path, rlp: fake_run.Rlp, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr(public.urllib.request, "urlopen", offline)
    done = rlp("data", "get", "cifar10", "here")
    assert done.code == 4
    assert "cannot be downloaded (Name or service not known)" in done.lines("error")[0]
    assert done.lines("hint") == [
        "hint: with a network: rlp data get cifar10 here; "
        "without one: rlp pipeline run configs/quickstart.yaml"
    ]


def test_images_that_changed_make_a_finished_stage_stale(
    here: Path, rlp: fake_run.Rlp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results on other images are never taken for results on these."""
    WRITERS["parquet"](here / "images", monkeypatch)
    assert rlp("pipeline", "run", "my.yaml", "--run-dir", "run", "--until", "pretrain").code == 0
    rows = [(encode(255 - pixels), label) for pixels, label in real_images("test", TEST)]
    write_parquet(here / "images" / "test-00000-of-00001.parquet", rows, names())
    plan = rlp("pipeline", "plan", "my.yaml", "--run-dir", "run", "--json").json()["stages"][0]
    assert (plan["action"], plan["reason"]) == ("run", "the images changed")


def test_training_that_diverges_is_exit_1_and_keeps_the_last_good_checkpoint(
    here: Path, rlp: fake_run.Rlp
) -> None:
    settings = (
        "pretrain.lr=10",
        "pretrain.weight_decay=1",
        "pretrain.epochs=40",
        "model.source=resnet20",
    )
    sets = [word for setting in settings for word in ("--set", setting)]
    done = rlp(
        "pipeline", "run", "my.yaml", "--run-dir", "run", "--until", "pretrain", *EMBEDDED, *sets
    )
    assert done.code == 1, done.err
    assert "training diverged" in done.lines("error")[0]
    assert "--set pretrain.lr=5 trains more gently" in done.lines("hint")[0]
    assert not (here / "run" / "pretrain").exists()
    kept = next((here / "run" / ".work" / "pretrain").glob("checkpoint-*.safetensors"))
    assert all(
        t.isfinite().all() for t in store.read_tensors(kept).values() if t.is_floating_point()
    )
