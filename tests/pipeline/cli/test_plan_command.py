"""`rlp pipeline plan`: what would run, of a network that was looked at, and what it would take."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_run import Rlp
from PIL import Image

from pipeline.cli.expected import Expected, _of_steps
from pipeline.run.rounds import chain
from pipeline.run.step import Action, Step
from stages import STAGES

NETS = """
from torch import nn

def small(num_classes=10, in_channels=3):
    return nn.Sequential(
        nn.Conv2d(in_channels, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes),
    )

class InDict(nn.Module):
    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.net = small(num_classes, in_channels)

    def forward(self, x):
        return {"logits": self.net(x)}

class Misfit(InDict):
    def forward(self, x):
        return self.net[6](x.flatten(1))
"""
PARTS = ["pretrain", "search", "reconstruct", "distill", "export to report"]


@pytest.fixture
def project(here: Path) -> Path:
    """Two classes of pictures, and networks."""
    for split in ("train", "test"):
        for shade, name in enumerate(("dark", "light")):
            (here / "photos" / split / name).mkdir(parents=True)
            for n in range(12):
                picture = Image.new("RGB", (12, 12), (20 * n, 100 * shade, n))
                picture.save(here / "photos" / split / name / f"{n}.png")
    (here / "nets.py").write_text(NETS)
    return here


def config(project: Path, source: str) -> str:
    file = project / "my.yaml"
    file.write_text(f"model: {{source: 'nets.py:{source}'}}\ndata: {{root: photos}}\n")
    return file.name


def test_it_says_what_would_run_and_what_that_takes(rlp: Rlp, project: Path) -> None:
    before = sorted(project.rglob("*.*"))
    found = rlp("pipeline", "plan", config(project, "small"))
    assert found.code == 0
    assert "min on this machine" in found.err
    assert "GB of memory" in found.err
    document = rlp("pipeline", "plan", "my.yaml", "--json").json()
    assert list(document["minutes"]) == PARTS
    assert document["memory_bytes"] > 1e8
    assert (document["device_memory_bytes"], document["device_memory"]) == (None, None)
    made = {path for path in project.rglob("*.*") if "__pycache__" not in path.parts}
    assert made == {*before, project / "my.yaml"}


def test_it_stops_where_a_run_would(rlp: Rlp, project: Path) -> None:
    found = rlp("pipeline", "plan", config(project, "small"), "--until", "trace", "--json").json()
    assert {row["stage"]: row["action"] for row in found["stages"]}["rotate"] == "skip"
    assert list(found["minutes"]) == ["pretrain", "search"]
    assert rlp("pipeline", "plan", "my.yaml", "--from", "prune", "--until", "trace").code == 2


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("InDict", "the network returns a dict"),
        ("Misfit", "does not run on 8 images"),
        ("absent", "absent"),
    ],
)
def test_what_a_run_would_refuse_is_refused_beside_the_table(
    rlp: Rlp, project: Path, source: str, said: str
) -> None:
    found = rlp("pipeline", "plan", config(project, source), "--json")
    assert found.code == 2
    assert said in found.json()["error"]["message"]
    assert len(found.json()["stages"]) == len(STAGES)
    assert found.json()["minutes"] is None


def steps(action: dict[str, Action], took: dict[str, float], rounds: int = 1) -> list[Step]:
    return [
        Step(
            stage,
            action.get(stage.name, "reuse"),
            "",
            None,
            {"duration_s": took[stage.name]} if stage.name in took else None,
        )
        for stage in chain(STAGES, rounds)
    ]


def test_stages_that_ran_before_take_what_they_took() -> None:
    minutes = dict.fromkeys(PARTS, 7.0)
    took = {stage.name: 60.0 for stage in STAGES}
    assert _of_steps(minutes, steps({"benchmark": "run", "report": "run"}, took)) == {PARTS[4]: 2.0}
    del took["distill"]
    assert _of_steps(minutes, steps({"distill": "run"}, took)) == {"distill": 7.0}
    twice = steps({"round-1/distill": "run", "distill": "run"}, {}, rounds=2)
    assert _of_steps(minutes, twice) == {"distill": 14.0}


def test_it_is_said_in_a_line() -> None:
    found = Expected({"search": 1.5, "distill": 0.0}, 1_600_000_000)
    expected = "expected about 2 min on this machine as busy as it is (search 1.5), and 1.6 GB"
    assert str(found).startswith(expected)
    unsure = Expected({"search": 1.5, "distill": 4.0}, 1_600_000_000, ("distill",))
    assert "(search 1.5), 4 more for distill where accuracy is missing, and" in str(unsure)
    on_gpu = Expected(
        {"search": 1.5}, 1_600_000_000, on_gpu={"search": 2 << 30, "distill": 1 << 30}
    )
    assert "1.6 GB of memory and 2.1 GB of GPU memory, most of it in search" in str(on_gpu)
    assert on_gpu.device_memory_bytes == 2 << 30
