"""The networks themselves, and the names of their classes."""

from __future__ import annotations

from stages.deploy.deployment import Deployment, Files


def files(made: Deployment) -> Files:
    """`model.onnx` is the chosen one; where there are several, all lie beside it by precision."""
    found = {"model.onnx": made.networks[made.chosen].SerializeToString()}
    if len(made.networks) > 1:
        found |= {
            f"model_{precision}.onnx": network.SerializeToString()
            for precision, network in made.networks.items()
        }
    return {
        **found,
        "model_uint8.onnx": made.uint8.SerializeToString(),
        "labels.txt": made.labels,
    }
