"""Our extraction as a whole, and its stages by themselves.

Shape suffixes: B = batch, C = channels, H, W = pixels.
"""

import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from benchmarks.extract_models import Model
from benchmarks.extract_pictures import Pictures
from benchmarks.extract_timing import num_cores
from mmcot_data.encoders import Encoder, EncoderConfig, load_encoder
from mmcot_data.encoders.base import Backend, Precision
from mmcot_data.extraction import ExtractionConfig, extract_features
from mmcot_data.extraction.decode import decode_image
from mmcot_data.extraction.plan import ExtractionPlan
from mmcot_data.extraction.prepare import open_pictures, prepare_extraction, scan_source
from mmcot_data.extraction.shard import ReadyBatch, ShardInProgress
from mmcot_data.images import decode_rgb
from mmcot_data.shards.schema import StorageDtype

__all__ = ["Ours", "Request", "decode_all", "load_ours"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What is to be extracted, whoever does it; it can be pickled."""

    model: Model
    pictures: Pictures
    batch_size: int
    device: str = "cpu"


@dataclass(frozen=True, kw_only=True, slots=True)
class Ours:
    """Our encoder at the precision that it uses, and the plan that it works by."""

    request: Request
    encoder: Encoder
    config: ExtractionConfig
    plan: ExtractionPlan
    choosing_seconds: float
    """What ``auto`` took to choose a precision, which is no part of the timings."""

    def extract(self, out: Path, dtype: StorageDtype = "float16") -> None:
        """All of it: looking through the pictures, extracting, writing, index and manifest."""
        extract_features(replace(self.config, out=out, dtype=dtype), encoder=self.encoder)

    def prepare_batches(self) -> list[ReadyBatch]:
        """The batches of the plan, decoded and prepared."""
        batches: list[ReadyBatch] = []
        with ThreadPoolExecutor(num_cores()) as threads:
            for number, shard in enumerate(self.plan.shards):
                progress = ShardInProgress(self.plan.shard_task(number), self.encoder)
                decoded = threads.map(
                    lambda image: decode_image(image, [self.encoder], "white"), shard.images
                )
                for position, (image,) in enumerate(decoded):
                    progress.add(position, image)
                batches += progress.ready_batches()
        return batches

    def forward(self, batches: Sequence[ReadyBatch]) -> None:
        """Compute prepared batches, each started before the one before is waited for."""
        waits = []
        for batch in batches:
            waits.append(self.encoder.start(batch.pixels_BCHW, batch.sizes))
            if len(waits) > 1:
                waits.pop(0)()
        for wait in waits:
            wait()


def load_ours(
    request: Request,
    precision: Precision | Literal["auto"],
    backend: Backend = "torch",
    pad_to: int = 1,
) -> Ours:
    """Load the weights of the request, and choose the precision if that is to be done."""
    encoder_config = EncoderConfig(
        name=request.model.encoder,
        model=request.model.location,
        precision=precision,
        backend=backend,
        device=request.device,
    )
    encoder = load_encoder(encoder_config)
    with tempfile.TemporaryDirectory() as out:
        config = ExtractionConfig(
            data=request.pictures.folder,
            out=Path(out),
            encoder=encoder_config,
            batch_size=request.batch_size,
            pad_to=pad_to,
        )
        source = scan_source(open_pictures(config))
        start = time.perf_counter()
        plan, encoder = prepare_extraction(config, encoder, source)
        seconds = time.perf_counter() - start
    chosen = encoder.describe()["precision"]
    return Ours(
        request=request,
        encoder=encoder,
        config=replace(config, encoder=replace(encoder_config, precision=chosen)),
        plan=plan,
        choosing_seconds=seconds if precision == "auto" else 0.0,
    )


def decode_all(request: Request, encoder: Encoder, num_threads: int) -> None:
    """Read, decode and resize every picture, and keep nothing."""

    def prepare(path: Path) -> torch.Tensor:
        return encoder.prepare(decode_rgb(path.read_bytes(), str(path)))

    with ThreadPoolExecutor(num_threads) as threads:
        for _ in threads.map(prepare, request.pictures.paths):
            pass
