"""Extract a data set with the fake encoder in a process of its own, to be killed or raced."""

import time
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path

from fake_encoder import FakeEncoder

from mmcot_data.encoders.base import EncoderConfig
from mmcot_data.extraction import ExtractionConfig, extract_features


class SlowEncoder(FakeEncoder):
    """Leaves time to be killed, or for others to join."""

    def __init__(self, seconds):
        super().__init__()
        self.seconds = seconds

    def encode(self, pixels_BCHW):
        time.sleep(self.seconds)
        return super().encode(pixels_BCHW)


def main(
    data: Path,
    out: Path,
    batch_size: int,
    container: str,
    results: Connection,
    barrier: Barrier | None,
) -> None:
    """Extract, and send the pictures made by this process, those encoded by it, and all rows."""
    if barrier is not None:
        barrier.wait(60)
    config = ExtractionConfig(
        data=data,
        out=out,
        encoder=EncoderConfig(name="fake"),
        format=container,
        shard_size=10,
        batch_size=batch_size,
        max_failures="100%",
    )
    encoder = SlowEncoder(0.004 if barrier is None else 0.03)
    summary = extract_features(config, encoder=encoder)
    encoded = sum(shape[0] for shape in encoder.batches)
    results.send((summary.num_extracted, encoded, summary.num_distinct))
