"""A second run over pictures that have not changed, beside hashing their bytes and nothing more."""

import hashlib
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.extract_pictures import Pictures
from benchmarks.extract_timing import Timing, take_turns
from mmcot_data.encoders import EncoderConfig, load_encoder
from mmcot_data.extraction import ExtractionConfig, extract_features

__all__ = ["time_second_run"]


def time_second_run(pictures: Pictures, rounds: int, folder: Path) -> dict[str, Timing]:
    """Extract once with the smallest encoder, then time the same request again.

    What a second run does depends neither on the encoder nor on the size of its features.
    """
    config = EncoderConfig(name="tiny", device="cpu")
    encoder = load_encoder(config)
    with tempfile.TemporaryDirectory(dir=folder) as out:
        request = ExtractionConfig(data=pictures.folder, out=Path(out), encoder=config)
        extract_features(request, encoder=encoder)
        ways: dict[str, Callable[[], object]] = {
            "sha256 of the files": lambda: _hash_all(pictures, 1),
            "sha256 of the files, 4 threads": lambda: _hash_all(pictures, 4),
            "ours, second run": lambda: extract_features(request, encoder=encoder),
        }
        return take_turns(ways, rounds)


def _hash_all(pictures: Pictures, num_threads: int) -> None:
    with ThreadPoolExecutor(num_threads) as threads:
        for _ in threads.map(_hash, pictures.paths):
            pass


def _hash(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()
