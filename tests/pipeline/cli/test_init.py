"""`rlp init`: what it writes runs as it is, and what it refuses leaves nothing behind."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from fake_run import Rlp
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline.cli import init_command, init_config, init_look
from pipeline.cli.init_look import usable_sides
from pipeline.cli.init_seen import Stored
from pipeline.config import yaml_nodes
from pipeline.config.load import load_config
from pipeline.config.schema import Config
from pipeline.data import Images, Splits
from pipeline.errors import UsageError

NETS = """
from torch import nn

def small(num_classes=10, in_channels=3, width=8):
    return nn.Sequential(
        nn.Conv2d(in_channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, num_classes),
    )

def no_classifier(in_channels=3):
    return nn.Conv2d(in_channels, 4, 3)

def seven(in_channels=3):
    return small(7, in_channels)

def one_logit(in_channels=3):
    return small(1, in_channels)

class Wrapped(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.net = small(num_classes)

class TwoInputs(Wrapped):
    def forward(self, x, mask):
        return self.net(x * mask)

class Auxiliary(Wrapped):
    def forward(self, x):
        return (self.net(x), self.net(x)) if self.training else self.net(x)

class InDict(Wrapped):
    def forward(self, x):
        return {"logits": self.net(x)}
"""
QUICK = (
    "search.trials=2", "search.images=10", "search.fit_images=16", "search.finalists=1",
    "search.table.images=8", "pretrain.epochs=1", "rotate.images=16",
)  # fmt: skip


def pictures(root: Path, sizes: tuple[tuple[int, int], ...], count: int = 12) -> Path:
    """Class folders; the class is the side that is bright."""
    generator = np.random.default_rng(0)
    for k, name in enumerate(("left", "right")):
        (root / name).mkdir(parents=True)
        for i in range(count):
            height, width = sizes[i % len(sizes)]
            pixels = generator.integers(0, 150, (height, width, 3), dtype=np.uint8)
            pixels[:, k * width // 2 : (k + 1) * width // 2] += 100
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a network and images in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_init_nets.py").write_text(NETS)
    pictures(tmp_path / "images", ((16, 16),))
    return tmp_path


def test_what_it_writes_runs_unedited(home: Path, rlp: Rlp) -> None:
    asked = ("init", "--model", "own_init_nets.py:small", "--data", "images", "--json")
    done = rlp(*asked, *(word for setting in QUICK for word in ("--set", setting)))
    assert done.code == 0, done.err
    said = done.json()
    assert (said["out"], said["network"]["prunable"]) == ("my.yaml", 2)
    text = (home / "my.yaml").read_text()
    for fact in ("2 classes", "16×16", "groups of channels", "model output", "minutes"):
        assert fact in text
    config = load_config(home / "my.yaml")
    assert config.model.source == "own_init_nets:small"
    assert config.search.trials == 2
    assert config.data.image_size is None
    ran = rlp("pipeline", "run", "my.yaml", "--until", "prune", "--json")
    assert ran.code == 0, ran.err
    assert (home / "artifacts" / "my" / "prune" / "model.safetensors").is_file()


def test_weights_that_are_there_are_not_trained(home: Path, rlp: Rlp) -> None:
    import importlib.util

    spec = importlib.util.spec_from_file_location("made_here", home / "own_init_nets.py")
    assert spec is not None
    assert spec.loader is not None
    nets = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(nets)
    save_file(nets.small(2).state_dict(), home / "w.safetensors")
    asked = ("init", "--model", "own_init_nets:small", "--data", "images")
    done = rlp(*asked, "--weights", "w.safetensors", "--out", "w.yaml")
    assert done.code == 0, done.err
    written = yaml_nodes.parse((home / "w.yaml").read_text(), "w.yaml")[0]
    assert written["model"]["weights"] == "w.safetensors"
    assert "pretrain" not in written
    save_file(nets.small(3).state_dict(), home / "w.safetensors")
    done = rlp(*asked, "--weights", "w.safetensors", "--out", "three.yaml")
    assert done.code == 3
    assert "8.weight is [3, 16], expected [2, 16]" in done.err
    assert not (home / "three.yaml").exists()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("--model resnet21", 2, "did you mean resnet20"),
        ("--model torchvision:resnet19", 2, "no such network"),
        ("--model no_such_module_at_all:net", 2, "no module"),
        ("--model nowhere.py:net", 2, "there is no file nowhere.py"),
        ("--model own_init_nets.py:large", 2, "defines no large"),
        ("--model own_init_nets.py:no_classifier", 2, "expected one tensor (8, 2)"),
        ("--model own_init_nets.py:one_logit", 2, "1 output, the data have 2 classes"),
        ("--model own_init_nets.py:TwoInputs", 2, "takes 2 inputs (x, mask)"),
        ("--model own_init_nets.py:InDict", 2, "a dict with 'logits'"),
        ("--model own_init_nets.py:small --weights none.pth", 3, "no such weights"),
        ("--data nowhere", 4, "there is no folder nowhere"),
        ("--data empty", 4, "no images recognised"),
        ("--data flat", 2, "3 pictures without labels"),
        ("--set search.trails=3", 2, "did you mean search.trials"),
        ("--out my.txt", 2, "ends in .yaml"),
        ("--out nowhere/my.yaml", 4, "no folder nowhere"),
        ("--out own.yaml", 2, "is there already, and is not replaced"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_written(
    home: Path, rlp: Rlp, words: str, code: int, said: str
) -> None:
    (home / "empty").mkdir()
    (home / "own.yaml").write_text("seed: 1\n")
    (home / "flat").mkdir()
    for i in range(3):
        Image.new("RGB", (9, 9)).save(home / "flat" / f"{i}.png")
    before = sorted(home.rglob("*"))
    given = words.split()
    images = () if "--data" in given else ("--data", "images")
    done = rlp("init", *images, *given)
    assert (done.code, done.out) == (code, "")
    assert said in done.err
    assert done.err.splitlines()[-1].startswith("hint: ")
    assert [p for p in sorted(home.rglob("*")) if "__pycache__" not in str(p)] == before
    assert (home / "own.yaml").read_text() == "seed: 1\n"


def test_a_file_that_came_meanwhile_stays(home: Path) -> None:
    (home / "my.yaml").write_text("seed: 1\n")
    with pytest.raises(UsageError, match="is there already"):
        init_command._write(home / "my.yaml", "seed: 2\n")
    assert (home / "my.yaml").read_text() == "seed: 1\n"


def test_a_network_elsewhere_is_named_where_a_run_would_not_find_it(
    home: Path, rlp: Rlp, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other")
    (other / "own_init_elsewhere.py").write_text(NETS)
    source = f"{other / 'own_init_elsewhere.py'}:small"
    done = rlp("init", "--model", source, "--data", "images")
    assert done.code == 2
    assert f"--out {other / 'my.yaml'}" in done.err
    done = rlp("init", "--model", source, "--data", "images", "--out", other / "my.yaml")
    assert done.code == 0, done.err
    assert load_config(other / "my.yaml").model.source == "own_init_elsewhere:small"


def sides(sizes: dict[tuple[int, int], int], weights: str | None = None, **native: Any) -> list:
    return list(usable_sides(Stored(2, Counter(sizes), 3, False), native, weights))


def test_the_size_that_suits_images() -> None:
    assert sides({(28, 28): 9})[:2] == [None, 32]
    assert sides({(20, 30): 9})[0] is None
    assert sides({(224, 224): 9})[0] is None
    assert sides({(256, 256): 9})[0] == 224
    assert sides({(120, 160): 5, (160, 120): 4})[:2] == [96, 128]
    assert sides({(800, 600): 5, (90, 90): 4})[0] == 224
    assert sides({(800, 600): 9}, "w.pth", input_size=(3, 299, 299))[0] == 299
    assert sides({(20, 20): 5, (24, 20): 4})[0] == 32


def test_a_network_that_needs_larger_images_gets_them() -> None:
    stored = Stored(3, Counter({(9, 9): 4}), 1, False)
    net = nn.Sequential(nn.Conv2d(1, 3, 40), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    tried = list(usable_sides(stored, {}, None))
    assert init_look.first_that_runs(net, stored, tried) == (48, [])


@pytest.mark.parametrize(
    ("network", "odd"),
    [
        ("seven", "7 outputs, the data have 2 classes"),
        ("Auxiliary", "in training mode the network returns a tuple of 2"),
    ],
)
def test_what_is_odd_about_a_network_is_said(home: Path, rlp: Rlp, network: str, odd: str) -> None:
    done = rlp("init", "--model", f"own_init_nets.py:{network}", "--data", "images", "--json")
    assert done.code == 0, done.err
    (said,) = done.json()["network"]["remarks"]
    assert odd in said
    assert f"warning: {said[:30]}" in done.err


def test_memory_that_runs_out_is_no_bug(
    home: Path, rlp: Rlp, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(init_look, "_speed", full)
    done = rlp("init", "--model", "own_init_nets.py:small", "--data", "images")
    assert done.code == 4
    assert "out of memory" in done.err


def test_the_normalisation_that_weights_expect_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Bright(nn.Module):
        """Class 0 where the mean is above one half of what pixels can be."""

        def forward(self, x: Tensor) -> Tensor:
            mean = x.mean((1, 2, 3))
            return torch.stack([mean, -mean], 1) * 20

    # 150, 135 | 120 lie around 127.5; their own mean parts them elsewhere, and so does ImageNet's
    values = torch.tensor([150, 150, 135, 120] * 10, dtype=torch.uint8)
    pixels = values.reshape(-1, 1, 1, 1).expand(-1, 8, 8, 3).contiguous()
    images = Images(pixels, (values == 120).long(), ("bright", "dark"))
    monkeypatch.setattr(init_look, "load_splits", lambda config, seed: Splits(images, images))
    card = SimpleNamespace(mean=images.mean, std=images.std, in_channels=3)
    config = Config(model={"source": "mine", "weights": "w.pth"})
    scores, found = init_look._normalised(Bright(), config, card, {})
    assert found == ((0.5,) * 3, (0.5,) * 3)
    assert scores.keys() == {"the images' own", "ImageNet's", "one half"}
    assert {name for name, (_, right) in scores.items() if right == 1} == {"one half"}
    given = Config(model={"source": "mine", "weights": "w.pth"}, data={"mean": (0.1,) * 3})
    assert init_look._normalised(Bright(), given, card, {}) == ({}, None)


@pytest.mark.parametrize(
    "value",
    ["plain/path.pth", "with space", "1e-3", "null", "no: yes", "# not", "é\n", "-", "a: b", "C:",
     0.1, 1e-7, None, True, [1, 2.5], {"macs": 0.5}, "{x}", "*a", "~/x"],
)  # fmt: skip
def test_every_value_is_read_back_as_it_was(value: Any) -> None:
    text = init_config.text_of({"seed": 0, "data": {"root": value}}, {}, ["a\nb: 1", ""])
    assert yaml_nodes.parse(text, "t")[0] == {"seed": 0, "data": {"root": value}}
