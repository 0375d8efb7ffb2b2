"""The calls of one forward pass, by the quickest way that holds.

Two ways lead there. `dispatch_capture` listens to PyTorch's dispatcher while the model runs on
tensors without values, which takes a fraction of a second. Where it gives up, `export_capture` asks
torch.export, which is many times slower and has the last word on what can be traced at all. Both
see the same ATen operators.
"""

from __future__ import annotations

import contextlib
from typing import Any

from torch import nn

from pipeline.errors import UsageError
from stages.trace.capture import dispatch_capture, export_capture
from stages.trace.capture.calls import Capture, Ground
from stages.trace.capture.model_state import Snapshot
from stages.trace.capture.refusals import no_output, refusal


def capture_forward(
    model: nn.Module, example_inputs: tuple[Any, ...], snapshot: Snapshot | None = None
) -> Capture:
    """The calls of one forward pass in eval mode.

    Raises:
        UsageError: the network does not run, or does what cannot be followed; names its line.
    """
    captured = _capture(model, example_inputs, snapshot)
    if not captured.outputs:
        raise no_output()
    return captured


def _capture(
    model: nn.Module, example_inputs: tuple[Any, ...], snapshot: Snapshot | None
) -> Capture:
    for ground in (Ground.META, Ground.FAKE):
        # tensor values used, higher-order operators, another torch
        with contextlib.suppress(Exception):
            return dispatch_capture.by_dispatch(
                model, example_inputs, ground=ground, snapshot=snapshot
            )
    try:
        return export_capture.by_export(model, example_inputs)
    # it names its line already
    except UsageError:
        raise
    except Exception as error:
        raise refusal(model, example_inputs, error) from error
