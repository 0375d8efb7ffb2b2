"""The shipped configs load, their number is known, and the schema beside them is the current
one.
"""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from pipeline.cli.running import user_modules
from pipeline.config.load import bundled_configs, find_config, load_config, schema_text
from pipeline.data.sources import EMBEDDED
from pipeline.errors import EnvironmentProblem, Hint

FOLDER = Path(__file__).parents[1] / "configs"
SHIPPED = (
    "mobilenet_cifar.yaml",
    "quickstart.yaml",
    "resnet20_cifar.yaml",
    "rlpruner/densenet121.yaml",
    "rlpruner/googlenet.yaml",
    "rlpruner/mobilenet_v3_large.yaml",
    "rlpruner/resnet56.yaml",
    "rlpruner/vgg19.yaml",
)


def test_every_shipped_config_is_listed_here() -> None:
    found = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.yaml"))
    assert tuple(found) == SHIPPED
    assert tuple(bundled_configs()) == SHIPPED, (
        "the package does not carry the configs of the checkout"
    )


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_config_loads_from_anywhere(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_config(find_config(f"configs/{name}")) == load_config(FOLDER / name)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_config_opens_with_what_it_is_for(name: str) -> None:
    first = (FOLDER / name).read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ")
    assert len(first) > 20


def test_schema_is_current() -> None:
    assert (FOLDER / "schema.json").read_text(encoding="utf-8") == schema_text(), (
        "make schema writes it anew"
    )


def test_the_way_out_of_absent_images_resets_what_belongs_to_them() -> None:
    """The command in the hint must run: weights, mean and std of CIFAR-10 do not fit the images
    in the package.
    """
    config = load_config(FOLDER / "resnet20_cifar.yaml")
    with (
        pytest.raises(EnvironmentProblem) as caught,
        user_modules(config, "configs/resnet20_cifar.yaml"),
    ):
        raise EnvironmentProblem("no images", hint=Hint(EMBEDDED))
    words = shlex.split(caught.value.hint)
    assert words[:4] == ["rlp", "pipeline", "run", "configs/resnet20_cifar.yaml"]
    other = load_config(
        FOLDER / "resnet20_cifar.yaml", [word for word in words[4:] if word != "--set"]
    )
    assert (other.data.source, other.model.weights, other.data.mean, other.data.std) == (
        "embedded",
        None,
        None,
        None,
    )
