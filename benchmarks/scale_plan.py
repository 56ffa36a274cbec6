"""Planning for ``benchmarks.scale``, in a process of its own, whose memory is all it uses."""

import json
import pickle
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.measuring import AnonymousMemory
from benchmarks.scale_set import STEP
from mmcot_data.encoders import EncoderConfig, load_encoder
from mmcot_data.extraction.config import ExtractionConfig
from mmcot_data.extraction.plan import plan_extraction
from mmcot_data.extraction.scan import ScannedImage
from mmcot_data.sources.picture_files import PictureFile

__all__ = ["main"]

_SIZES = ((224, 224), (640, 480), (302, 187), (750, 429), (480, 640))


def main() -> None:
    """Arguments: encoder, number of pictures; prints an object of JSON."""
    print(json.dumps(_plan(sys.argv[1], int(sys.argv[2]))))


def _plan(name: str, num_images: int) -> dict[str, float]:
    described = EncoderConfig(name=name, random_weights=0, device="cpu")
    encoder = load_encoder(described)
    config = ExtractionConfig(data=Path("data"), out=Path("shards"), encoder=described)
    with AnonymousMemory() as memory:
        images = _scan(num_images)
        scanned = memory.peak_mib
        start = time.perf_counter()
        plan = plan_extraction(config, encoder, images, "none")
        return {
            "seconds": time.perf_counter() - start,
            "scanned_mib": scanned,
            "planned_mib": memory.peak_mib,
            "task_nbytes": len(pickle.dumps(plan.shard_task(0))) / len(plan.shards[0].images),
        }


def _scan(num_images: int) -> list[ScannedImage]:
    """What a scan of as many picture files gives."""
    digests = np.random.default_rng(0)
    images = []
    for number in range(num_images):
        question_id = str(number * STEP % num_images)
        file = f"images/train/{question_id}/image.png"
        width, height = _SIZES[number % len(_SIZES)]
        images.append(
            ScannedImage(
                question_id=question_id,
                role="question",
                file=file,
                stored=PictureFile(Path("/data") / file),
                image_sha256=digests.bytes(32).hex(),
                width=width,
                height=height,
            )
        )
    return images


if __name__ == "__main__":
    main()
