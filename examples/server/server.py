"""A deploy folder behind HTTP: POST a picture, get ranked labels as JSON.

    pip install fastapi uvicorn onnxruntime numpy pillow
    python examples/server/server.py artifacts/quickstart/deploy --port 8000
    curl --data-binary @examples/ankle_boot.png 'localhost:8000/predict?top=3'

It needs nothing of rlp: the folder's own predict.py verifies the files and prepares the pictures.
One worker; for more, `uvicorn --workers` with `application` as a factory.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, HTTPException, Query, Request
from starlette.concurrency import run_in_threadpool

LARGEST = 32 << 20  # bytes of a picture


def predict_of(folder: Path) -> ModuleType:
    """The folder's predict.py."""
    spec = importlib.util.spec_from_file_location("predict", folder / "predict.py")
    if spec is None or spec.loader is None or not (folder / "predict.py").is_file():
        sys.exit(f"error: {folder}: not a deploy folder (no predict.py)")
    module = importlib.util.module_from_spec(spec)
    sys.modules["predict"] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


def application(folder: Path, model: str = "model.onnx", threads: int = 1) -> FastAPI:
    """The service; its network is loaded once, and called from several threads at a time."""
    predict = predict_of(folder)
    try:
        classify = predict.Classifier(folder, model=model, threads=threads)
    except predict.DamagedFolder as error:
        sys.exit(f"error: {error}")
    app = FastAPI(title=folder.resolve().parent.name)

    @app.get("/health")
    def health() -> dict[str, Any]:
        return {"model": model, "classes": len(classify.labels)}

    @app.post("/predict")
    async def ranked(
        request: Request, top: Annotated[int, Query(ge=1, le=1000)] = 5
    ) -> dict[str, Any]:
        picture = await received(request)
        try:
            found = await run_in_threadpool(classify, picture, top)
        except (*predict.UNREADABLE, MemoryError) as error:
            raise HTTPException(422, predict.why_unreadable(error)) from None
        return {"labels": [vars(label) for label in found]}

    return app


async def received(request: Request) -> bytes:
    """The body, of which no more is held than a picture may have."""
    parts = bytearray()
    async for part in request.stream():
        parts += part
        if len(parts) > LARGEST:
            raise HTTPException(413, f"more than {LARGEST >> 20} MB")
    return bytes(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description="A deploy folder behind HTTP.")
    parser.add_argument("folder", type=Path, help="a deploy folder")
    parser.add_argument("--model", default="model.onnx", help="a file of the folder")
    parser.add_argument("--threads", type=int, default=1, help="of one call of the network")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    given = parser.parse_args()
    app = application(given.folder, given.model, given.threads)
    uvicorn.run(app, host=given.host, port=given.port, log_level="warning")


if __name__ == "__main__":
    main()
