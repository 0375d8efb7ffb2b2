"""Everything a deploy folder holds; a format is a file here, a line in `FORMATS`, and its kind in
`pipeline/run/artifacts.py`.
"""

from __future__ import annotations

from stages.deploy.deployment import Writer
from stages.deploy.formats import hugging_face, model_card, networks, script, triton

FORMATS: dict[str, Writer] = {
    "networks": networks.files,
    "hugging-face": hugging_face.files,
    "triton": triton.files,
    "script": script.files,
    "model-card": model_card.files,
}
