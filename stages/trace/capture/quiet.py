"""Running somebody's network without a word: it runs dozens of times, and under strange tensors."""

from __future__ import annotations

import gc
import io
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout

import torch


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing that forward, its hooks or PyTorch print, log or warn of reaches the terminal.

    PyTorch tells whole graphs to the log when it gives up. `torch.compile` is switched off as well:
    a network that runs a few times on other shapes each time would be compiled anew for each.
    """
    level = logging.root.manager.disable
    with ExitStack() as stack:
        stack.callback(logging.disable, level)
        logging.disable(logging.CRITICAL)
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(redirect_stdout(io.StringIO()))
        stack.enter_context(redirect_stderr(io.StringIO()))
        if "torch._dynamo" in sys.modules:  # loading it takes longer than most traces
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield


@contextmanager
def collector_paused() -> Iterator[None]:
    """No garbage collections: each would walk through all that PyTorch holds, a tenth of a trace.

    Hardly anything made in a trace is a cycle, so nothing piles up.
    """
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()
