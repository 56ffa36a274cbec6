"""Extract into a bucket with the fake encoder in a process of its own, to be killed or raced."""

import os
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path

from fake_encoder import FakeEncoder

from mmcot_data.encoders.base import EncoderConfig
from mmcot_data.extraction import ExtractionConfig, ShardTask, extract_features, extract_shard
from mmcot_data.shards import lease, uploads


class SlowEncoder(FakeEncoder):
    """Leaves time to be killed."""

    def encode(self, pixels_BCHW):
        time.sleep(0.25)
        return super().encode(pixels_BCHW)


def main(
    environment: Mapping[str, str],
    data: Path,
    out: str,
    lease_seconds: float,
    shard_size: int,
    results: Connection,
    barrier: Barrier | None,
) -> None:
    """Extract, and send the pictures that this process encoded."""
    os.environ.update(environment)
    lease.LEASE_SECONDS = lease_seconds
    uploads.PART_NBYTES = 2500
    encoder = SlowEncoder()
    config = ExtractionConfig(
        data=data,
        out=out,
        encoder=EncoderConfig(name="fake"),
        shard_size=shard_size,
        batch_size=3,
    )
    if barrier is not None:
        barrier.wait(60)
    extract_features(config, encoder=encoder)
    results.send(sum(shape[0] for shape in encoder.batches))


def make_shard(environment: Mapping[str, str], task: ShardTask, results: Connection) -> None:
    """Make one shard, and send its commit record."""
    os.environ.update(environment)
    results.send(extract_shard(task, FakeEncoder()))
