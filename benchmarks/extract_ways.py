"""The ways to extract that are compared: Multimodal-CoT's, Hugging Face's, and ours.

Shape suffixes: N = pictures, B = batch, C = channels, H, W = pixels, P = patches, D = width.
"""

import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from PIL import Image
from transformers import pipeline

from benchmarks.extract_models import silence_transformers
from benchmarks.extract_ours import Request, load_ours
from benchmarks.measuring import AnonymousMemory
from mmcot_data.encoders.base import Backend, Precision
from mmcot_data.extraction.shard import ReadyBatch
from mmcot_data.images import bytes_sha256
from mmcot_data.shards import open_features

__all__ = ["Extract", "Way", "load_peer", "measure_memory", "plain_forward", "read_features"]

_SAVED = "features.pth"

Extract = Callable[[Path], object]
"""Extracts into an empty folder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """One way to extract, with its settings; it can be pickled."""

    kind: Literal["loop", "pipeline", "ours"]
    precision: Precision | Literal["auto"] = "fp32"
    backend: Backend = "torch"


def load_peer(way: Way, request: Request) -> Extract:
    """Load the model of a way that is not ours."""
    return _load_loop(request) if way.kind == "loop" else _load_pipeline(request)


def _load_loop(request: Request) -> Extract:
    """As extract_features.py does it: picture by picture, all kept, joined and saved at the end."""
    model = request.model.load().to(request.device)

    def extract(out: Path) -> None:
        kept = []
        for path in request.pictures.paths:
            transform = request.model.transform()
            with Image.open(path) as image:
                pixels_CHW = transform(image.convert("RGB"))
            with torch.no_grad():
                features_BPD = model(
                    pixel_values=pixels_CHW[None].to(request.device)
                ).last_hidden_state
            kept.append(features_BPD.detach().cpu())
        torch.save(torch.cat(kept), out / _SAVED)

    return extract


def _load_pipeline(request: Request) -> Extract:
    """In batches where it can: pictures of several sizes do not fit into one of its batches."""
    extractor = pipeline(
        "image-feature-extraction",
        model=request.model.load(),
        image_processor=request.model.load_processor(),
        device=request.device,
    )
    batch_size = 1 if request.model.encoder == "detr" else request.batch_size
    files = [str(path) for path in request.pictures.paths]

    def extract(out: Path) -> None:
        features = extractor(files, batch_size=batch_size, return_tensors=True)
        torch.save(torch.cat(features).cpu(), out / _SAVED)

    return extract


def read_features(out: Path, request: Request) -> npt.NDArray[np.float32]:
    """The features (N, P, D) that a way wrote, in the order of the request's pictures."""
    if (saved := out / _SAVED).exists():
        features_NPD: npt.NDArray[np.float32] = torch.load(saved).numpy()
        return features_NPD
    folder = out / request.model.encoder
    features = open_features(folder)
    index = pl.read_parquet(folder / "index.parquet", columns=["image_sha256", "question_id"])
    ids = dict(index.iter_rows())
    digests = [bytes_sha256(path.read_bytes()) for path in request.pictures.paths]
    return np.stack([features[ids[digest]] for digest in digests]).astype(np.float32)


def plain_forward(request: Request, batches: Sequence[ReadyBatch]) -> Callable[[], None]:
    """Compute with the model as transformers makes it, on batches normalised beforehand."""
    model = request.model.load()
    inputs = [request.model.normalize(batch.pixels_BCHW) for batch in batches]

    def forward() -> None:
        with torch.inference_mode():
            for pixels_BCHW in inputs:
                model(pixel_values=pixels_BCHW)

    return forward


def measure_memory(way: Way, request: Request, num_threads: int, folder: Path) -> float:
    """Peak of private memory above that of a new process with its model loaded, in MiB."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(_measure_memory, way, request, num_threads, folder).result()


def _measure_memory(way: Way, request: Request, num_threads: int, folder: Path) -> float:
    torch.set_num_threads(num_threads)
    silence_transformers()
    if way.kind == "ours":
        extract: Extract = load_ours(request, way.precision, way.backend).extract
    else:
        extract = load_peer(way, request)
    with tempfile.TemporaryDirectory(dir=folder) as out, AnonymousMemory() as memory:
        extract(Path(out))
        return memory.peak_mib
