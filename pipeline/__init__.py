"""How things run: artefacts, configs, models, data and the terminal. Imports no stage."""

import os

from pipeline import torchvision_import

# Before onnxruntime is imported, here or in a child: it would keep a database in the user's cache
# and send what it runs. Whoever wants that sets it to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

torchvision_import.install()
