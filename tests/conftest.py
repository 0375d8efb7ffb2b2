"""Fixtures for every test. Through this file the folder is on `sys.path`: `import fake_run`
works below it.
"""

from __future__ import annotations

import functools
import importlib
import os

# Before torch is imported: test processes that share the cores must not each spin a thread on every
# one of them.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import fake_run
import hypothesis
import pytest
import torch

# The same examples in every run: what passed here passes there. `--hypothesis-profile=default`
# looks for new ones.
hypothesis.settings.register_profile("same", derandomize=True)
hypothesis.settings.load_profile("same")


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Decoded images go to a folder of the session's own, never to the user's cache."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True, scope="session")
def operators_are_read_once() -> None:
    """torch.export reads the thousand operators that ONNX can express anew for every file, a second
    of each; here they are read once a process.
    """
    apis = importlib.import_module("torch.onnx._internal._lazy_import").onnxscript_apis
    if hasattr(type(apis), "__getattr__"):  # a proxy that imports the module when it is wanted
        apis.get_torchlib_ops = functools.cache(lambda: apis.__getattr__("get_torchlib_ops")())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that no worker is left with one at the end. Tests marked
    `gpu` are skipped where torch sees none.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
    wanting = [item for item in items if item.get_closest_marker("gpu")]
    if wanting and not torch.cuda.is_available():
        for item in wanting:
            item.add_marker(pytest.mark.skip(reason="torch sees no GPU"))


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The eight stages replaced by fakes that write small files within milliseconds; see
    `fake_run`.
    """
    fake_run.install(monkeypatch.setattr)


@pytest.fixture
def rlp(capsys: pytest.CaptureFixture[str]) -> fake_run.Rlp:
    """`rlp("check", run)` runs the command line in this process and gives `.code`, `.out`,
    `.err`, `.json()`.
    """
    return fake_run.Rlp(capsys.readouterr)
